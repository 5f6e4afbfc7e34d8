"use strict";
(() => {
  const at = (id) => document.getElementById(id);

  function make(tag, className, text) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  }

  // --- light and dark ---

  const THEMES = ["system", "light", "dark"];
  const SHELF = "mmedeval/theme";

  function theme(name) {
    if (name === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    at("theme").textContent = `Theme: ${name}`;
  }

  function keptTheme() {
    try {
      const kept = localStorage.getItem(SHELF);
      return THEMES.includes(kept) ? kept : "system";
    } catch {
      return "system"; // This browser keeps nothing for files from disk.
    }
  }

  at("theme").hidden = false;
  theme(keptTheme());
  at("theme").addEventListener("click", () => {
    const now = document.documentElement.dataset.theme || "system";
    const next = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length];
    theme(next);
    try {
      localStorage.setItem(SHELF, next);
    } catch {
      // It holds until the page is closed.
    }
  });

  // On paper nothing can be opened.
  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open], .raw)")];
    for (const each of opened) each.open = true;
  });
  window.addEventListener("afterprint", () => {
    for (const each of opened) each.open = false;
  });

  if (!at("samples")) return;

  // --- unpacking ---

  const breathe = () => new Promise((done) => setTimeout(done));

  // Four bytes in five characters, as in RFC 1924 but for those that mean something to HTML.
  function bytesOf(text) {
    const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%.()*+-;,=/?@^_`{|}~";
    const digit = new Uint8Array(128);
    for (let i = 0; i < 85; i += 1) digit[alphabet.charCodeAt(i)] = i;
    const rest = text.length % 5;
    const bytes = new Uint8Array(Math.floor(text.length / 5) * 4 + Math.max(0, rest - 1));
    let to = 0;
    for (let from = 0; from < text.length; from += 5) {
      let value = 0;
      for (let i = 0; i < 5; i += 1) value = value * 85 + (from + i < text.length ? digit[text.charCodeAt(from + i)] : 84);
      for (let shift = 24; shift >= 0 && to < bytes.length; shift -= 8) {
        bytes[to] = value >>> shift;
        to += 1;
      }
    }
    return bytes;
  }

  // The way back from bzip2: Huffman codes, runs of zeros and move-to-front, the Burrows-Wheeler transform, runs of bytes.
  async function unpacked(bytes) {
    let place = 0;
    let hold = 0;
    let held = 0;
    let out = new Uint8Array(bytes.length * 5 + 1024);
    let size = 0;

    function bits(count) {
      while (held < count) {
        hold = (hold << 8) | bytes[place];
        place += 1;
        held += 8;
      }
      held -= count;
      return (hold >>> held) & ((1 << count) - 1);
    }

    function code(lengths) {
      const limit = new Int32Array(22).fill(-1);
      const base = new Int32Array(22);
      const order = [];
      let next = 0;
      for (let length = 1; length <= 20; length += 1) {
        base[length] = next - order.length;
        lengths.forEach((each, symbol) => {
          if (each === length) {
            order.push(symbol);
            next += 1;
            limit[length] = next - 1;
          }
        });
        next <<= 1;
      }
      return { limit, base, order: Uint16Array.from(order), shortest: Math.min(...lengths) };
    }

    function put(byte, times) {
      while (size + times > out.length) {
        const wider = new Uint8Array(out.length * 2);
        wider.set(out);
        out = wider;
      }
      out.fill(byte, size, size + times);
      size += times;
    }

    if (bits(24) !== 0x425a68) throw new Error("no bzip2 data");
    const block = new Uint32Array((bits(8) - 48) * 100000);
    for (;;) {
      const magic = [bits(24), bits(24)];
      if (magic[0] === 0x177245 && magic[1] === 0x385090) break;
      if (magic[0] !== 0x314159 || magic[1] !== 0x265359 || place > bytes.length) throw new Error("damaged data");
      bits(16);
      bits(16);
      if (bits(1)) throw new Error("an old kind of bzip2 data");
      const origin = bits(24);
      const front = [];
      const ranges = bits(16);
      for (let i = 0; i < 16; i += 1) {
        if (!(ranges & (0x8000 >> i))) continue;
        const range = bits(16);
        for (let j = 0; j < 16; j += 1) if (range & (0x8000 >> j)) front.push(i * 16 + j);
      }
      const groups = bits(3);
      const selectors = new Uint8Array(bits(15));
      const recent = [...Array(groups).keys()];
      for (let i = 0; i < selectors.length; i += 1) {
        let back = 0;
        while (bits(1)) back += 1;
        const [chosen] = recent.splice(back, 1);
        recent.unshift(chosen);
        selectors[i] = chosen;
      }
      const end = front.length + 1;
      const codes = [];
      for (let i = 0; i < groups; i += 1) {
        const lengths = [];
        let length = bits(5);
        for (let symbol = 0; symbol <= end; symbol += 1) {
          while (bits(1)) length += bits(1) ? -1 : 1;
          lengths.push(length);
        }
        codes.push(code(lengths));
      }
      const mtf = Uint8Array.from(front);
      const starts = new Int32Array(257);
      let filled = 0;
      let run = 0;
      let weight = 1;
      let group = 0;
      let left = 0;
      let table = null;
      for (;;) {
        if (left === 0) {
          table = codes[selectors[group]];
          group += 1;
          left = 50;
        }
        left -= 1;
        let length = table.shortest;
        let word = bits(length);
        while (word > table.limit[length]) {
          length += 1;
          if (length > 20) throw new Error("damaged data");
          word = (word << 1) | bits(1);
        }
        const symbol = table.order[word - table.base[length]];
        if (symbol < 2) {
          run += (symbol + 1) * weight;
          weight *= 2;
          continue;
        }
        if (run) {
          block.fill(mtf[0], filled, filled + run);
          starts[mtf[0] + 1] += run;
          filled += run;
          run = 0;
          weight = 1;
        }
        if (symbol === end) break;
        const byte = mtf[symbol - 1];
        mtf.copyWithin(1, 0, symbol - 1);
        mtf[0] = byte;
        block[filled] = byte;
        starts[byte + 1] += 1;
        filled += 1;
      }
      for (let i = 0; i < 256; i += 1) starts[i + 1] += starts[i];
      for (let i = 0; i < filled; i += 1) {
        const byte = block[i] & 255;
        block[starts[byte]] |= i << 8;
        starts[byte] += 1;
      }
      let entry = block[origin] >>> 8;
      let last = -1;
      let same = 0;
      for (let i = 0; i < filled; i += 1) {
        entry = block[entry];
        const byte = entry & 255;
        entry >>>= 8;
        if (same === 4) {
          put(last, byte);
          same = 0;
          last = -1;
        } else {
          same = byte === last ? same + 1 : 1;
          last = byte;
          if (size === out.length) put(byte, 1);
          else {
            out[size] = byte;
            size += 1;
          }
        }
      }
      await breathe();
    }
    return out.subarray(0, size);
  }

  async function part(number) {
    const element = at(`part-${number}`);
    const bytes = bytesOf(element.textContent.trim());
    element.remove();
    await breathe();
    return JSON.parse(new TextDecoder().decode(await unpacked(bytes)));
  }

  // --- what there is ---

  const about = JSON.parse(at("about").textContent);
  const { runs } = about;
  const names = new Map(Object.entries(about.names));
  const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
  const VERDICTS = {
    r: ["right", "✓", "good"], w: ["wrong", "✗", "bad"], u: ["unread", "?", "odd"], f: ["failed", "!", "odd"],
    x: ["not scored", "·", "none"], "-": ["not asked", "–", "none"],
  };
  const PAGE = 60;
  let tasks = [];
  const items = [];
  let answers = [];
  const hay = []; // Texts as they are searched: of the questions, then of what each run wrote.
  const links = [];
  const byLink = new Map();
  let found = [];
  let begin = 0; // From here to `end` what was found stands in the list.
  let end = 0;
  let current = -1;
  let steps = []; // The buttons for the sample before and the one behind.
  let promptsOpen = runs.length === 1;

  // As texts are searched: in small letters and without accents; full-width letters, and others that are written in several
  // ways, are all the same.
  function folded(text) {
    const plain = /^[\0-\x7f]*$/.test(text) ? text : text.normalize("NFKD").replace(/[\u0300-\u036f]/g, "").normalize("NFC");
    return plain.toLowerCase();
  }

  async function read() {
    ({ tasks } = await part(0));
    tasks.forEach(([, , ...columns], task) => columns[0].forEach((_, i) => items.push([task, ...columns.map((column) => column[i])])));
    items.forEach((item, i) => {
      // Half a surrogate pair has no place in an address.
      const name = `${tasks[item[0]][0]}/${item[1]}`.replace(/\p{Cs}/gu, (half) => `\\u${half.charCodeAt(0).toString(16)}`);
      let link = name;
      for (let times = 2; byLink.has(link); times += 1) link = `${name}~${times}`;
      links.push(link);
      byLink.set(link, i);
    });
    hay.push(items.map((item, i) => folded(`${links[i]}\n${item[2]}\n${item[4].join("\n")}\n${item[6]}`)));
    answers = await part(1);
    hay.push(...answers.map(({ failures }) => {
      const texts = items.map(() => "");
      for (const [place, reason] of Object.entries(failures)) texts[place] = folded(reason);
      return texts;
    }));
  }

  // What the runs wrote is most of the page: it comes while questions can be looked at already.
  async function readOutputs() {
    for (let run = 0; run < runs.length; run += 1) {
      at("reading").textContent = ` · reading the texts of run ${run + 1} of ${runs.length} …`;
      const outputs = await part(run + 2);
      if (outputs) outputs.forEach((text, i) => { if (text) hay[run + 1][i] = folded(text); });
      answers[run].outputs = outputs;
      if (outputs && at("find").value.trim()) find();
      if (current !== -1) show(current, at("detail").contains(document.activeElement));
    }
    at("reading").textContent = "";
  }

  // --- finding ---

  // Answers that were read and are not all the same; with a run, another answer than that run's.
  function disagree(i, run) {
    const given = answers.filter(({ verdicts }) => verdicts[i] === "r" || verdicts[i] === "w");
    if (run !== -1 && !given.includes(answers[run])) return false;
    const answer = ({ read }) => read[0][read[1][i]];
    return given.some((each) => answer(each) !== answer(given[0]));
  }

  // Words in quotes belong together; all of them must occur, in the question or in the same run's output.
  function termsOf(text) {
    return [...folded(text).matchAll(/["“”„]([^"“”„]+)["“”„]|([^\s"“”„]+)/g)].map((each) => each[1] || each[2]);
  }

  function find() {
    const terms = termsOf(at("find").value);
    const task = at("in").value === "" ? -1 : Number(at("in").value);
    const run = at("run").value === "" ? -1 : Number(at("run").value);
    const verdict = at("verdict").value;
    const which = run === -1 ? [...answers.keys()] : [run];
    found = [];
    for (let i = 0; i < items.length; i += 1) {
      if (task !== -1 && items[i][0] !== task) continue;
      if (verdict === "d") {
        if (!disagree(i, run)) continue;
      } else if (verdict) {
        if (!which.some((each) => answers[each].verdicts[i] === verdict)) continue;
      } else if (run !== -1 && answers[run].verdicts[i] === "-") continue;
      const missing = terms.filter((term) => !hay[0][i].includes(term));
      if (missing.length && !which.some((each) => missing.every((term) => hay[each + 1][i].includes(term)))) continue;
      found.push(i);
    }
    reveal(0);
    at("count").textContent = `${found.length.toLocaleString("en")} of ${items.length.toLocaleString("en")} questions`;
    place();
  }

  // Empties the list and begins it anew with the page on which a place of what was found is.
  function reveal(position) {
    begin = position - (position % PAGE);
    end = begin;
    at("list").replaceChildren();
    more();
  }

  function more() {
    const next = found.slice(end, end + PAGE);
    end += next.length;
    at("list").append(...next.map(row));
    tellLeft();
  }

  function earlier() {
    const height = at("list").offsetHeight;
    begin -= PAGE;
    at("list").prepend(...found.slice(begin, begin + PAGE).map(row));
    tellLeft();
    at("results").scrollTop += at("list").offsetHeight - height;
  }

  function tellLeft() {
    for (const [id, word, left] of [["earlier", "earlier", begin], ["more", "more", found.length - end]]) {
      at(id).hidden = left === 0;
      at(id).textContent = `Show ${word} (${left.toLocaleString("en")} left)`;
    }
  }

  function row(i) {
    const [task, , question] = items[i];
    const line = make("li");
    const link = make("a");
    link.href = `#${encodeURI(links[i])}`;
    link.dataset.place = String(i);
    if (i === current) link.setAttribute("aria-current", "true");
    const id = make("span", "id");
    id.append(say("span", "", links[i]));
    const marks = make("span", "marks");
    marks.setAttribute("aria-hidden", "true");
    for (const { verdicts } of answers) marks.append(make("span", VERDICTS[verdicts[i]][2], VERDICTS[verdicts[i]][1]));
    const right = answers.filter(({ verdicts }) => verdicts[i] === "r").length;
    const asked = answers.filter(({ verdicts }) => verdicts[i] !== "-").length;
    id.append(marks, make("span", "hidden", asked === 1 ? VERDICTS[answers.find(({ verdicts }) => verdicts[i] !== "-").verdicts[i]][0] : `right in ${right} of ${asked} runs`));
    const start = say("span", "start said", question.length > 160 ? `${question.slice(0, 160)}…` : question);
    start.lang = tasks[task][1];
    link.append(id, start);
    line.append(link);
    return line;
  }

  // --- showing ---

  // Text from outside, as text. What would act on a screen or turn the writing around is shown as its number.
  const ACTS = /(?![\n\t\u200c\u200d])[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/gu;

  function say(tag, className, text) {
    const element = make(tag, className);
    let from = 0;
    for (const hit of text.matchAll(ACTS)) {
      if (hit.index > from) element.append(text.slice(from, hit.index));
      const number = hit[0].codePointAt(0);
      const escape = number < 256 ? `\\x${number.toString(16).padStart(2, "0")}` : number < 65536 ? `\\u${number.toString(16).padStart(4, "0")}` : `\\U${number.toString(16).padStart(8, "0")}`;
      element.append(make("span", "esc", escape));
      from = hit.index + hit[0].length;
    }
    element.append(text.slice(from));
    return element;
  }

  function side(title, ...children) {
    const card = make("section", "side");
    card.append(say("h4", "", title), ...children);
    return card;
  }

  function said(text, language, none) {
    if (!text) return make("div", "none", none);
    const element = say("div", "said", text);
    element.lang = language;
    return element;
  }

  function prompt(i, run) {
    const { prompts, templates } = answers[run];
    if (prompts[i] === -1) return null;
    const texts = [items[i][2], ...items[i][4]];
    return templates[prompts[i]].map((each) => (typeof each === "number" ? texts[each] : each)).join("");
  }

  function output(i, run, language) {
    const { outputs, cut, failures, verdicts, truncated } = answers[run];
    if (failures[i] !== undefined) return [make("p", "odd", "No answer came:"), said(failures[i], "en", "")];
    if (verdicts[i] === "-") return [make("p", "none", "This run was not asked this question.")];
    if (outputs === undefined) return [make("p", "none", "This text is still being read …")];
    if (!outputs || outputs[i] === null) return [];
    const text = outputs[i];
    const parts = [];
    if (cut[i]) {
      const [head, gone] = cut[i];
      parts.push(said(text.slice(0, head), language, ""), make("span", "cut", `${gone.toLocaleString("en")} characters are left out here`), said(text.slice(head), language, ""));
    } else parts.push(said(text, language, "(an empty text)"));
    if (truncated.includes(i)) parts.push(make("p", "odd", "The text was cut at the longest length that was allowed."));
    return parts;
  }

  function show(i, focus) {
    current = i;
    const [task, , question, special, options, answer, reference] = items[i];
    const language = tasks[task][1];
    const letters = special === 0 ? [...LETTERS.slice(0, options.length)] : special;
    const right = answer.split(",");
    const head = make("div", "head");
    const title = say("h3", "", links[i]);
    title.tabIndex = -1;
    const buttons = make("span");
    steps = [["Previous", -1], ["Next", 1]].map(([text, step]) => {
      const button = make("button", "", text);
      button.type = "button";
      button.addEventListener("click", () => go(step));
      buttons.append(button, " ");
      return [button, step];
    });
    const link = make("a", "", "link");
    link.href = `#${encodeURI(links[i])}`;
    link.setAttribute("aria-label", "Link to this sample");
    buttons.append(link);
    head.append(title, buttons);

    const list = make("ul", "options");
    list.append(...options.map((text, number) => {
      const good = right.includes(letters[number]);
      const line = say("li", good ? "right said" : "said", `${letters[number]}. ${text}`);
      line.lang = language;
      if (good) {
        const tick = make("span", "tick", "  ✓ right");
        tick.lang = "en";
        line.append(tick);
      }
      return line;
    }));
    const asked = side(`Question · ${names.get(language) || language}`, said(question, language, "(no text)"), list);

    // The same prompt is shown once, whatever the number of runs.
    const prompts = new Map();
    for (const run of runs.keys()) {
      const text = prompt(i, run);
      if (text !== null) prompts.set(text, [...(prompts.get(text) || []), runs[run]]);
    }
    for (const [text, of] of prompts) {
      const box = make("details");
      box.open = promptsOpen;
      box.addEventListener("toggle", () => { promptsOpen = box.open; });
      box.append(say("summary", "", prompts.size === 1 ? "Prompt" : `Prompt of ${of.join(", ")}`), said(text, language, "(an empty prompt)"));
      asked.append(box);
    }
    if (!prompts.size) asked.append(make("p", "none", "The prompt was not stored."));

    const cards = runs.map((name, run) => {
      const { verdicts, read, scored } = answers[run];
      const [word, sign, kind] = VERDICTS[verdicts[i]];
      const letter = read[0][read[1][i]];
      const verdict = say("p", `verdict ${kind}`, `${sign} ${word}${letter ? `: ${letter}` : ""}`);
      const card = side(name, verdict, ...output(i, run, language));
      if (scored && scored[i].length) {
        const pairs = [];
        for (let k = 0; k < scored[i].length; k += 2) pairs.push(`${scored[i][k]}\u00a0${scored[i][k + 1].toFixed(2).replace("-", "−")}`);
        card.append(say("p", "soft", `Loglikelihoods, the best ones: ${pairs.join(" · ")}`));
      }
      return card;
    });
    const sides = make("div", runs.length === 1 ? "sides" : "sides many");
    const goal = side("Reference", said(reference, language, "(none)"));
    if (runs.length === 1) sides.append(asked, ...cards, goal);
    else {
      for (const column of [[asked, goal], cards]) {
        const box = make("div");
        box.append(...column);
        sides.append(box);
      }
    }
    at("detail").replaceChildren(head, sides);
    place();
    if (focus) title.focus({ preventScroll: true });
  }

  // Marks the sample that is shown in the list, and tells the buttons what stands beside it there.
  function place() {
    for (const [button, step] of steps) button.disabled = beside(step) === undefined;
    for (const link of at("list").querySelectorAll("a")) {
      if (Number(link.dataset.place) === current) {
        link.setAttribute("aria-current", "true");
        const box = at("results").getBoundingClientRect();
        const own = link.getBoundingClientRect();
        if (own.top < box.top || own.bottom > box.bottom) at("results").scrollTop += own.top - box.top - box.height / 3;
      } else link.removeAttribute("aria-current");
    }
  }

  function beside(step) {
    const position = found.indexOf(current);
    return position === -1 ? found[step > 0 ? 0 : found.length] : found[position + step];
  }

  function go(step) {
    const next = beside(step);
    if (next === undefined) return;
    bring(next);
    // Shown at once: the next key may come before the browser tells of the new address.
    show(next, true);
    location.hash = encodeURI(links[next]);
  }

  // Puts a sample into the list, if it is among what was found.
  function bring(i) {
    const position = found.indexOf(i);
    if (position === end) more();
    else if (position !== -1 && (position < begin || position > end)) reveal(position);
  }

  function fromHash(focus) {
    let name = location.hash.slice(1);
    try {
      name = decodeURI(name);
    } catch {
      // Not one of ours; it is looked up as it stands.
    }
    const i = byLink.get(name);
    if (i === undefined) return false;
    if (i !== current) {
      bring(i);
      show(i, focus);
    }
    // On a phone the sample stands below the list.
    at(matchMedia("(max-width: 52rem)").matches ? "detail" : "samples").scrollIntoView();
    return true;
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
    const typing = event.target instanceof Element && event.target.matches("input, select, textarea");
    if (typing) {
      if (event.key !== "Escape") return;
      // Chromium would empty the field without telling of it.
      event.preventDefault();
      event.target.blur();
      return;
    }
    if (event.key === "/") {
      at("samples").scrollIntoView();
      at("find").focus();
    } else if (event.key === "j") go(1);
    else if (event.key === "k") go(-1);
    else return;
    event.preventDefault();
  });

  (async () => {
    await read();
    at("in").append(...tasks.map(([task, language], i) => {
      const option = say("option", "", names.get(task) || task);
      option.value = String(i);
      option.lang = "en";
      return option;
    }));
    for (const id of ["find", "in", "run", "verdict"]) {
      at(id).disabled = false;
      at(id).addEventListener(id === "find" ? "input" : "change", find);
    }
    at("form").addEventListener("submit", (event) => event.preventDefault());
    at("more").addEventListener("click", more);
    at("earlier").addEventListener("click", earlier);
    window.addEventListener("hashchange", () => fromHash(true));
    find();
    if (!fromHash(false) && found.length) show(found[0], false);
    await readOutputs();
    document.documentElement.dataset.ready = "yes";
  })().catch((error) => {
    at("count").textContent = `The samples cannot be read (${error.message}). The file may be damaged; make it again with mmedeval report.`;
    at("reading").textContent = "";
    throw error;
  });
})();
