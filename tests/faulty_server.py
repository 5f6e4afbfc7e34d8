"""A server that speaks the wire formats of Anthropic and OpenAI and misbehaves on order.

As a program it prints the port that it listens on, on 127.0.0.1, and serves until it is stopped. Answers depend on the prompt
alone. A prompt is known by its last message (or its `prompt`): that is what orders look for and what is counted.

`POST /order` takes JSON and replaces all orders given before; what is left out is as in `ORDERS`:

- `next`: faults for the next requests, one each ("ok" for none)
- `always`: part of a prompt (or of a path, as in "/batches") -> the fault that it always gets
- `rates`: fault -> the share of tries that get it, drawn from `seed`, the prompt and how often it was asked
- `seconds`: what Retry-After and rate limits ask for; `delay`: how long every answer takes; `polls`: looks at a batch in vain

`GET /count` gives `asked` and `answered` (prompt -> how often), `faults` (kind -> how often), `paths`, and `at_once`, the most
requests that were open together. `POST /forget` clears counts, caches, files, batches and orders.

Faults: 429, 429-seconds, 429-date, 500, 529, reset, drip, half, html, empty, refusal, filter, cut, expired (a key), unknown (a
model), too_long, poor (no credit), spent (an answer that says that the rate limit is used up), and, of a request in a batch,
lapsed. Errors repeat the key that came with the request, as real servers do.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import email.utils
import hashlib
import json
import re
import socket
import struct
import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any

ORDERS: dict[str, Any] = {"next": [], "always": {}, "rates": {}, "seed": 0, "seconds": 1.0, "delay": 0.0, "polls": 1}
HTML = b"<!DOCTYPE html><html><body><h1>Bad gateway</h1></body></html>"
REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    402: "Payment Required",
    404: "Not Found",
    429: "Too Many Requests",
}
ERRORS = {
    # fault: status, Anthropic's type, OpenAI's code, message
    "429": (429, "rate_limit_error", "rate_limit_exceeded", "too many requests of {key}"),
    "429-seconds": (429, "rate_limit_error", "rate_limit_exceeded", "too many requests of {key}"),
    "429-date": (429, "rate_limit_error", "rate_limit_exceeded", "too many requests of {key}"),
    "500": (500, "api_error", "server_error", "an internal error, key {key}"),
    "529": (529, "overloaded_error", "overloaded", "overloaded, key {key}"),
    "expired": (401, "authentication_error", "invalid_api_key", "the key {key} has expired"),
    "unknown": (404, "not_found_error", "model_not_found", "model: {model}; key {key}"),
    "poor": (400, "invalid_request_error", "insufficient_quota", "Your credit balance is too low to access the API; key {key}"),
    "too_long": (400, "invalid_request_error", "context_length_exceeded", "prompt is too long: 9 tokens > 8 maximum; key {key}"),
    "filter": (400, "invalid_request_error", "content_filter", "Output blocked by content filtering policy; key {key}"),
}


class State:
    """What was ordered and what was seen."""

    def __init__(self) -> None:
        self.forget()
        self.open = 0

    def forget(self) -> None:
        self.orders = dict(ORDERS)
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.paths: Counter[str] = Counter()
        self.at_once = 0
        self.cached: set[str] = set()
        self.files: dict[str, str] = {}
        self.batches: dict[str, dict[str, Any]] = {}

    def order(self, orders: dict[str, Any]) -> None:
        unknown = orders.keys() - ORDERS.keys()
        if unknown:
            raise ValueError(f"no such order: {unknown}")
        self.orders = {**ORDERS, **orders}

    def fault(self, prompt: str, *, counted: bool = True, drawn: bool = True) -> str | None:
        """What this try gets instead of an answer, if any. For what is not `counted`, no request of its own, `next` waits."""
        fault: str | None = None
        if counted and self.orders["next"]:
            fault = self.orders["next"].pop(0)
        else:
            fault = next((each for part, each in self.orders["always"].items() if part in prompt), None)
            if fault is None and drawn and self.orders["rates"]:
                chance = number_of(f"{self.orders['seed']}/{self.asked[prompt]}/{prompt}")
                for kind, rate in self.orders["rates"].items():
                    if chance < rate:
                        fault = kind
                        break
                    chance -= rate
        if fault is None or fault == "ok":
            return None
        self.faults[fault] += 1
        return fault


def number_of(text: str) -> float:
    """A number from 0 to 1 that depends on the text alone."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest(), "big") / 2**48


def answer_to(prompt: str, question: str, most: int, stops: list[str]) -> tuple[str, str]:
    """A text, and why it ends: "stop", a stop string, or "length". A word is a token. The question's options are answers."""
    letters = re.findall(r"^([A-J])\. ", question, re.MULTILINE) or ["A"]
    number = number_of(prompt)
    text = f"The number {number:.12f} says so.\n\nAnswer: {letters[int(number * len(letters))]}"
    for stop in stops:
        if stop in text:
            return text[: text.index(stop)], stop
    words = text.split(" ")
    return (" ".join(words[:most]), "length") if len(words) > most else (text, "stop")


def tokens_of(text: str) -> int:
    return len(text) // 4 + 1


def text_of(content: Any) -> str:
    """The text of a message's content, a string or a list of blocks."""
    return content if isinstance(content, str) else "".join(block["text"] for block in content)


def prompt_of(asked: dict[str, Any]) -> str:
    if "messages" in asked:
        return text_of(asked["messages"][-1]["content"])
    return str(asked["prompt"])


def anthropic_answer(state: State, asked: dict[str, Any], fault: str | None) -> dict[str, Any]:
    system = asked.get("system", "")
    blocks = [{"text": system}] if isinstance(system, str) else list(system)
    for message in asked["messages"]:
        content = message["content"]
        blocks += [{"text": content}] if isinstance(content, str) else content
    whole = "".join(block["text"] for block in blocks)
    text, end = answer_to(whole, prompt_of(asked), asked["max_tokens"], asked.get("stop_sequences", []))
    usage: dict[str, Any] = {"input_tokens": 0, "output_tokens": len(text.split(" ")), "service_tier": "standard"}
    marked = max((i for i, block in enumerate(blocks) if "cache_control" in block), default=-1) + 1
    shared = "".join(block["text"] for block in blocks[:marked])
    usage["input_tokens"] = tokens_of("".join(block["text"] for block in blocks[marked:]))
    kind = "cache_read_input_tokens" if shared in state.cached else "cache_creation_input_tokens"
    usage |= {"cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}
    if shared:
        usage[kind] = tokens_of(shared)
        state.cached.add(shared)
    content = [{"type": "text", "text": text, "citations": None}]
    if asked.get("thinking", {}).get("type") in ("enabled", "adaptive"):
        content.insert(0, {"type": "thinking", "thinking": "Let me think. Answer: J", "signature": "c2lnbmVk"})
        usage["output_tokens"] += 5
        usage["output_tokens_details"] = {"thinking_tokens": 5}
    reason = {"stop": "end_turn", "length": "max_tokens"}.get(end, "stop_sequence")
    details = None
    if fault == "empty":
        content = content[:-1]
    if fault == "refusal":
        content, reason = [], "refusal"
        details = {"type": "refusal", "category": "bio", "explanation": "too dangerous"}
    return {
        "id": f"msg_{number_of(text) * 1e12:.0f}",
        "type": "message",
        "role": "assistant",
        "model": asked["model"],
        "content": content,
        "stop_reason": reason,
        "stop_sequence": end if reason == "stop_sequence" else None,
        "stop_details": details,
        "usage": usage,
    }


def openai_answer(asked: dict[str, Any], fault: str | None) -> dict[str, Any]:
    chat = "messages" in asked
    prompt = "".join(text_of(message["content"]) for message in asked["messages"]) if chat else asked["prompt"]
    most = asked.get("max_completion_tokens") or asked.get("max_tokens") or 16
    stops = asked.get("stop") or []
    text, end = answer_to(prompt, prompt_of(asked), most, [stops] if isinstance(stops, str) else stops)
    usage = {
        "prompt_tokens": tokens_of(prompt),
        "completion_tokens": len(text.split(" ")),
        "prompt_tokens_details": {"cached_tokens": tokens_of(prompt) // 2},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    if "reasoning_effort" in asked:
        message["reasoning_content"] = "Let me think. Answer: J"
        usage["completion_tokens"] += 5
        usage["completion_tokens_details"]["reasoning_tokens"] = 5
    reason = "length" if end == "length" else "stop"
    if fault == "empty":
        text = message["content"] = ""
    if fault == "refusal":
        message |= {"content": None, "refusal": "I cannot help with that."}
    if fault == "filter":
        text, reason = "", "content_filter"
        message["content"] = ""
    usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]
    choice = {"index": 0, "finish_reason": reason, "logprobs": None}
    choice |= {"message": message} if chat else {"text": text}
    return {
        "id": f"cmpl-{number_of(prompt) * 1e12:.0f}",
        "object": "chat.completion" if chat else "text_completion",
        "created": 1767225600,
        "model": asked["model"],
        "choices": [choice],
        "usage": usage,
    }


def error_body(fault: str, key: str, model: str, *, anthropic: bool) -> tuple[int, dict[str, Any]]:
    status, kind, code, words = ERRORS[fault]
    message = words.format(key=key, model=model)
    if anthropic:
        return status, {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}
    if code == "insufficient_quota":
        status = 429
    return status, {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}


class Connection(asyncio.Protocol):
    """One connection: requests come in, answers or worse go out."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.buffer = b""
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            first, *lines = self.buffer[:end].decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            size = end + 4 + int(headers.get("content-length", "0"))
            if len(self.buffer) < size:
                return
            body, self.buffer = self.buffer[end + 4 : size], self.buffer[size:]
            method, path, _ = first.split(" ")
            self.take(method, path.partition("?")[0], headers, body)

    # --- what is asked ---

    def take(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        state = self.state
        if path == "/count":
            seen = {name: getattr(state, name) for name in ("asked", "answered", "faults", "paths", "at_once")}
            self.reply(200, seen)
        elif path == "/order":
            state.order(json.loads(body))
            self.reply(200, {})
        elif path == "/forget":
            state.forget()
            self.reply(200, {})
        else:
            state.paths[f"{method} {path}"] += 1
            key = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
            if path in ("/v1/messages", "/v1/chat/completions", "/v1/completions"):
                self.take_prompt(path == "/v1/messages", json.loads(body), key)
            else:
                self.take_other(method, path, headers, body, key)

    def take_prompt(self, anthropic: bool, asked: dict[str, Any], key: str) -> None:
        state, prompt = self.state, prompt_of(asked)
        state.asked[prompt] += 1
        state.open += 1
        state.at_once = max(state.at_once, state.open)
        fault = state.fault(prompt)
        delay = state.orders["delay"]
        if delay:
            asyncio.get_running_loop().call_later(delay, self.answer, anthropic, asked, key, prompt, fault)
        else:
            self.answer(anthropic, asked, key, prompt, fault)

    def answer(self, anthropic: bool, asked: dict[str, Any], key: str, prompt: str, fault: str | None) -> None:
        state = self.state
        state.open -= 1
        if fault in ERRORS and not (fault == "filter" and not anthropic):
            self.fail(fault, key, asked["model"], anthropic=anthropic)
            return
        answer = anthropic_answer(state, asked, fault) if anthropic else openai_answer(asked, fault)
        if fault in ("reset", "drip", "half", "html", "cut"):
            self.misbehave(fault, answer)
            return
        state.answered[prompt] += 1
        self.reply(200, answer, self.limits(anthropic) if fault == "spent" else {})

    def limits(self, anthropic: bool) -> dict[str, str]:
        seconds = self.state.orders["seconds"]
        if not anthropic:
            return {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": f"{seconds * 1000:.0f}ms"}
        reset = datetime.fromtimestamp(time.time() + seconds, UTC).isoformat().replace("+00:00", "Z")
        return {"anthropic-ratelimit-requests-remaining": "0", "anthropic-ratelimit-requests-reset": reset}

    def fail(self, fault: str, key: str, model: str, *, anthropic: bool) -> None:
        status, body = error_body(fault, key, model, anthropic=anthropic)
        seconds = self.state.orders["seconds"]
        headers = {}
        if fault == "429-seconds":
            headers["Retry-After"] = f"{seconds:g}"
        if fault == "429-date":
            headers["Retry-After"] = email.utils.formatdate(time.time() + seconds, usegmt=True)
        self.reply(status, body, headers)

    def take_other(self, method: str, path: str, headers: dict[str, str], body: bytes, key: str) -> None:
        """Files and batches. Errors ordered for the path strike before anything is done, broken connections afterwards."""
        state = self.state
        anthropic = path.startswith("/v1/messages/")
        fault = state.fault(path, drawn=False)
        if fault in ERRORS:
            self.fail(fault, key, "", anthropic=anthropic)
            return
        found = self.found(method, path, f"http://{headers['host']}", body, key)
        if found is None:
            self.fail("unknown", key, path, anthropic=anthropic)
        elif fault is not None:
            self.misbehave(fault, found)
        else:
            self.reply(200, found, kind="application/octet-stream" if isinstance(found, bytes) else "application/json")

    def found(self, method: str, path: str, host: str, body: bytes, key: str) -> dict[str, Any] | bytes | None:
        state = self.state
        if method == "POST" and path == "/v1/messages/batches":
            requests = json.loads(body)["requests"]
            results = [anthropic_result(state, each, key) for each in requests]
            name = self.keep(f"msgbatch_{len(state.batches)}", {"results": results})
            return anthropic_batch(name, state.batches[name], host)
        if path == "/v1/messages/batches":
            batches = [anthropic_batch(name, batch, host) for name, batch in reversed(state.batches.items())]
            return {"data": batches, "has_more": False, "first_id": None, "last_id": None}
        if method == "POST" and path == "/v1/files":
            name = f"file-{len(state.files)}"
            state.files[name] = uploaded(body)
            about = {"id": name, "object": "file", "bytes": len(body), "created_at": 1767225600, "filename": "batch.jsonl"}
            return {**about, "purpose": "batch", "status": "processed"}
        if method == "POST" and path == "/v1/batches":
            return self.take_openai_batch(json.loads(body), key)
        if path == "/v1/batches":
            return {
                "object": "list",
                "data": [openai_batch(*each) for each in reversed(state.batches.items())],
                "has_more": False,
            }
        if match := re.fullmatch(r"/v1/files/([^/]+)/content", path):
            return state.files[match[1]].encode() if match[1] in state.files else None
        match = re.fullmatch(r"/v1/(?:messages/)?batches/([^/]+)(/results|/cancel)?", path)
        if match is None or match[1] not in state.batches:
            return None
        batch = state.batches[match[1]]
        if match[2] == "/results":
            return "".join(json.dumps(result) + "\n" for result in batch["results"]).encode()
        batch["polls"] -= 1
        return anthropic_batch(match[1], batch, host) if "results" in batch else openai_batch(match[1], batch)

    def keep(self, name: str, batch: dict[str, Any]) -> str:
        self.state.batches[name] = {**batch, "polls": self.state.orders["polls"], "created": time.time()}
        return name

    def take_openai_batch(self, asked: dict[str, Any], key: str) -> dict[str, Any]:
        state = self.state
        lines = [json.loads(line) for line in state.files[asked["input_file_id"]].splitlines() if line]
        results = [openai_result(state, each, key) for each in lines]
        files = {}
        for name, good in (("output_file_id", True), ("error_file_id", False)):
            chosen = [result for result, is_good in results if is_good == good]
            if chosen:
                files[name] = f"file-{len(state.files)}"
                state.files[files[name]] = "".join(json.dumps(result) + "\n" for result in chosen)
        batch = {"asked": asked, "files": files, "total": len(lines), "failed": sum(not good for _, good in results)}
        name = self.keep(f"batch_{len(state.batches)}", batch)
        return openai_batch(name, state.batches[name])

    # --- what goes back ---

    def reply(self, status: int, body: object, headers: dict[str, str] | None = None, kind: str = "application/json") -> None:
        if self.transport is None:
            return
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Error')}", f"Content-Type: {kind}", f"Content-Length: {len(content)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self.transport.write("\r\n".join([*lines, "", ""]).encode("latin-1") + content)

    def misbehave(self, fault: str, answer: dict[str, Any] | bytes) -> None:
        if self.transport is None:
            return
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        if fault == "reset":
            link = self.transport.get_extra_info("socket")
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
        elif fault == "drip":
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(content) + 10_000}\r\n\r\n"
            self.transport.write(head.encode())
            self.drip(content)
        elif fault == "half":
            self.reply(200, content[: len(content) // 2])
        elif fault == "html":
            self.reply(200, HTML, kind="text/html")
        elif fault == "cut":
            head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
            half = content[: len(content) // 2]
            self.transport.write(head.encode() + f"{len(half):x}\r\n".encode() + half + b"\r\n")
            self.transport.close()
        else:
            raise ValueError(f"no such fault: {fault}")

    def drip(self, content: bytes) -> None:
        """A byte now and then, and never the last one."""
        if self.transport is not None:
            self.transport.write(content[:1] or b" ")
            asyncio.get_running_loop().call_later(0.1, self.drip, content[1:])


def anthropic_result(state: State, each: dict[str, Any], key: str) -> dict[str, Any]:
    """A line of a batch's results."""
    prompt = prompt_of(each["params"])
    state.asked[prompt] += 1
    fault = state.fault(prompt, counted=False)
    if fault == "lapsed":
        result: dict[str, Any] = {"type": "expired"}
    elif fault in ERRORS:
        result = {"type": "errored", "error": error_body(fault, key, each["params"]["model"], anthropic=True)[1]}
    else:
        state.answered[prompt] += 1
        result = {"type": "succeeded", "message": anthropic_answer(state, each["params"], fault)}
    return {"custom_id": each["custom_id"], "result": result}


def anthropic_batch(name: str, batch: dict[str, Any], host: str) -> dict[str, Any]:
    ended = batch["polls"] < 0
    kinds = Counter(result["result"]["type"] for result in batch["results"])
    counts = {kind: kinds[kind] if ended else 0 for kind in ("succeeded", "errored", "canceled", "expired")}
    return {
        "id": name,
        "type": "message_batch",
        "processing_status": "ended" if ended else "in_progress",
        "request_counts": {**counts, "processing": 0 if ended else len(batch["results"])},
        "created_at": datetime.fromtimestamp(batch["created"], UTC).isoformat(),
        "expires_at": datetime.fromtimestamp(batch["created"] + 86400, UTC).isoformat(),
        "ended_at": datetime.now(UTC).isoformat() if ended else None,
        "cancel_initiated_at": None,
        "archived_at": None,
        "results_url": f"{host}/v1/messages/batches/{name}/results" if ended else None,
    }


def openai_result(state: State, each: dict[str, Any], key: str) -> tuple[dict[str, Any], bool]:
    """A line of a batch's output file (True) or of its error file."""
    prompt = prompt_of(each["body"])
    state.asked[prompt] += 1
    fault = state.fault(prompt, counted=False)
    line: dict[str, Any] = {
        "id": f"batch_req_{each['custom_id']}",
        "custom_id": each["custom_id"],
        "response": None,
        "error": None,
    }
    if fault == "lapsed":
        message = "This request could not be executed before the completion window expired."
        return {**line, "error": {"code": "batch_expired", "message": message}}, False
    if fault in ERRORS and fault != "filter":
        status, body = error_body(fault, key, each["body"]["model"], anthropic=False)
        return {**line, "response": {"status_code": status, "request_id": "req_1", "body": body}}, False
    state.answered[prompt] += 1
    body = openai_answer(each["body"], fault)
    return {**line, "response": {"status_code": 200, "request_id": "req_1", "body": body}}, True


def openai_batch(name: str, batch: dict[str, Any]) -> dict[str, Any]:
    ended = batch["polls"] < 0
    done = batch["total"] - batch["failed"] if ended else 0
    return {
        "id": name,
        "object": "batch",
        **batch["asked"],
        "errors": None,
        "status": "completed" if ended else "in_progress",
        "created_at": int(batch["created"]),
        "request_counts": {"total": batch["total"], "completed": done, "failed": batch["failed"] if ended else 0},
        **(batch["files"] if ended else {}),
    }


def uploaded(body: bytes) -> str:
    """The file out of a multipart form."""
    border = body[: body.index(b"\r\n")]
    for part in body.split(border):
        head, _, content = part.partition(b"\r\n\r\n")
        if b'name="file"' in head:
            return content.removesuffix(b"\r\n").decode()
    raise ValueError("no file was uploaded")


async def serve(port: int) -> None:
    state = State()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(state), "127.0.0.1", port, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=0, help="where to listen (default: any free port)")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(parser.parse_args().port))
