"""What an error of the server means for the request, and for the run."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("openai")

from mmedeval_openai.troubles import status_trouble


def trouble(status: int, body: Any, **headers: str) -> Any:
    return status_trouble(
        status, headers, body, key_place="the file key.txt", redact=lambda text: text.replace("sk-secret", "[key]")
    )


def error(message: str, **fields: Any) -> dict[str, Any]:
    return {"error": {"message": message, **fields}}


@pytest.mark.parametrize(
    ("status", "body", "verdict", "kind"),
    [
        (401, error("Incorrect API key provided", code="invalid_api_key"), "hopeless", "backend"),
        (403, error("Country not supported", code="unsupported_country_region_territory"), "hopeless", "backend"),
        (404, error("The model `x` does not exist", code="model_not_found"), "hopeless", "backend"),
        # llama_cpp.server
        (400, error("The model `x` does not exist", code="model_not_found"), "hopeless", "backend"),
        (429, error("You exceeded your current quota", code="insufficient_quota"), "hopeless", "backend"),
        (429, error("Billing hard limit", type="billing_hard_limit_reached"), "hopeless", "backend"),
        (429, error("Rate limit reached", code="rate_limit_exceeded"), "busy", "backend"),
        (503, error("The engine is overloaded"), "busy", "backend"),
        (500, error("maximum context length of something"), "passing", "backend"),
        (502, "<html><h1>Bad gateway</h1></html>", "passing", "backend"),
        (400, error("too many tokens", code="context_length_exceeded"), "refused", "too_long"),
        # vLLM, older and newer
        (
            400,
            {"object": "error", "message": "This model's maximum context length is 64 tokens", "code": 400},
            "refused",
            "too_long",
        ),
        (400, error("This model's maximum context length is 64 tokens", type="BadRequestError", code=400), "refused", "too_long"),
        # llama.cpp's own server
        (400, error("the request exceeds", type="exceed_context_size_error", code=400), "refused", "too_long"),
        (400, error("The response was filtered", code="content_filter"), "refused", "refused"),
        (403, error("Flagged", code="content_policy_violation"), "refused", "refused"),
        (400, error("Invalid prompt: flagged", code="invalid_prompt"), "refused", "refused"),
        (400, error("Unsupported value", code="unsupported_value", param="temperature"), "hopeless", "backend"),
        (400, error("something else"), "refused", "backend"),
        (422, {"detail": [{"loc": ["body"], "msg": "field required"}]}, "refused", "backend"),
        (501, error("not supported"), "hopeless", "backend"),
        (429, error("Request too large for gpt-9: tokens must be reduced"), "refused", "too_long"),
        # OpenRouter's moderation, of one prompt
        (403, {"error": {"message": "flagged", "metadata": {"reasons": ["self-harm"]}}}, "refused", "refused"),
        # Gemini's compatible endpoint
        (400, [{"error": {"message": "API key not valid. Please pass a valid API key.", "code": 400}}], "hopeless", "backend"),
    ],
)
def test_what_a_status_and_its_words_mean(status: int, body: Any, verdict: str, kind: str) -> None:
    got = trouble(status, body)
    assert (got.verdict, got.kind) == (verdict, kind)
    assert str(got).startswith(f"HTTP {status}: ")


def test_a_key_is_taken_out_before_a_long_message_is_cut() -> None:
    words = "x" * 595 + "sk-secret"
    assert "sk-" not in str(trouble(500, error(words)))


def test_a_pause_that_the_server_asks_for_is_kept() -> None:
    assert trouble(429, error("slow down"), **{"retry-after": "7"}).pause == 7.0


def test_a_refused_key_is_told_with_its_place() -> None:
    assert str(trouble(401, {"detail": "Invalid API key"})) == "HTTP 401: Invalid API key; the key is from the file key.txt"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("temperature", "--model-arg temperature=false"),
        ("max_tokens", "--model-arg max_tokens_name=max_completion_tokens"),
        ("max_completion_tokens", "--model-arg max_tokens_name=max_tokens"),
        ("seed", "--model-arg seed=false"),
        ("stop", "--model-arg stop=false"),
        ("response_format", "--model-arg response_format=false"),
    ],
)
def test_a_parameter_that_the_model_does_not_take_is_told_with_the_way_around(name: str, hint: str) -> None:
    assert hint in str(trouble(400, error("Unsupported parameter", code="unsupported_parameter", param=name)))


@pytest.mark.parametrize(
    "body",
    [
        # Gemini's compatible endpoint
        [{"error": {"code": 400, "message": 'Invalid JSON payload received. Unknown name "seed": Cannot find field.'}}],
        [
            {
                "error": {
                    "code": 400,
                    "message": 'Unknown name "top_k": Cannot find field.\nUnknown name "seed": Cannot find field.',
                }
            }
        ],
        # Mistral
        {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted", "input": 7}]},
        {"object": "error", "message": {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"]}]}, "code": None},
        error("Unrecognized request argument supplied: seed", type="invalid_request_error"),
    ],
)
def test_a_server_that_names_what_it_does_not_take_in_words_alone_is_understood(body: Any) -> None:
    for status in (400, 422):
        got = trouble(status, body)
        assert got.verdict == "hopeless"
        assert str(got).endswith("; --model-arg seed=false leaves it out")


@pytest.mark.parametrize(
    "body",
    [
        error('Unknown name "top_k": Cannot find field.'),
        error("the request must stop; seed and temperature are not supported"),
        {"detail": [{"type": "extra_forbidden", "loc": ["body", "messages", 0, "user", "seed"]}]},
    ],
)
def test_words_that_name_nothing_that_can_be_left_out_end_no_run_at_once(body: Any) -> None:
    assert trouble(400, body).verdict == "refused"


def test_an_address_without_a_server_of_this_kind_is_told() -> None:
    assert "most end in /v1" in str(trouble(404, "<html>not found</html>"))


def test_a_page_that_is_no_message_is_not_repeated_and_a_long_one_is_cut() -> None:
    assert str(trouble(502, "<html>Bad gateway</html>")) == "HTTP 502: the server says nothing else"
    assert len(str(trouble(400, error("x" * 5000)))) < 1000
