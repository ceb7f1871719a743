/* The explorer in the page: controls, drawing and painting. What it shows is computed by explore_core.js in a worker.

   It fills the element with the id "explorer", whose static figure stays until everything is there, and on paper. Data come from
   explore/weights.js and explore/faces.js beside this file, scripts of one assignment each, because a page opened from
   a folder may load nothing else. */
"use strict";

(() => {
  const FOLDER = document.currentScript.src.replace(/[^/]*$/, "");
  const SIDE = 448; // pixels of the large picture
  const INK = { truth: "#56b4e9", top: "#e69f00" }; // as in the figures of the book
  const STRENGTH = 0.85; // of a map over the picture where it is strongest; where it says nothing, the picture is as it is

  // --- small things

  const number = (value) => String(Number(value.toPrecision(3)));
  const argmax = (values) => values.indexOf(Math.max(...values));
  const list = (words) => words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;

  /** An element with properties (those that begin with "aria-" or "data-" become attributes) and children. */
  function make(tag, properties = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (/^(aria|data)-|^(role|for)$/.test(name)) element.setAttribute(name, value);
      else element[name] = value;
    }
    element.append(...children);
    return element;
  }

  function loadScript(name) {
    return new Promise((resolve, reject) => {
      const script = make("script", { src: FOLDER + name });
      script.onload = resolve;
      script.onerror = () => reject(new Error(`${name} could not be loaded: build the site again, or copy the whole folder`));
      document.head.append(script);
    });
  }

  /** A picture (size * size * 3) as a canvas of that size, under `map` {of, colours, cover}, if there is one: its shares of
      the colours at each pixel, and how much of the picture such a share covers, from 0 to 1. */
  function canvasOf(pixels, size, map) {
    const canvas = make("canvas", { width: size, height: size });
    const image = new ImageData(size, size), { data } = image;
    for (let i = 0, p = 0, d = 0; i < size * size; i++, p += 3, d += 4) {
      if (map) {
        const share = map.of(i), at = 3 * Math.min(255, Math.max(0, Math.floor(256 * share))), cover = STRENGTH * map.cover(share);
        for (let c = 0; c < 3; c++) data[d + c] = (1 - cover) * pixels[p + c] + cover * map.colours[at + c];
      } else for (let c = 0; c < 3; c++) data[d + c] = pixels[p + c];
      data[d + 3] = 255;
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  }

  /** Draw the border of a mask (size * size) over a canvas, edged with black so that it shows on any skin. */
  function outline(context, mask, size, colour) {
    const step = context.canvas.width / size;
    const path = new Path2D();
    const at = (x, y) => x >= 0 && y >= 0 && x < size && y < size && mask[y * size + x];
    const line = (x0, y0, x1, y1) => { path.moveTo(x0 * step, y0 * step); path.lineTo(x1 * step, y1 * step); };
    for (let y = 0; y <= size; y++) {
      for (let x = 0; x <= size; x++) {
        if (!at(x, y) !== !at(x, y - 1)) line(x, y, x + 1, y);
        if (!at(x, y) !== !at(x - 1, y)) line(x, y, x, y + 1);
      }
    }
    for (const [width, ink] of [[4.5, "#000"], [2.2, colour]]) {
      Object.assign(context, { lineWidth: width, strokeStyle: ink, lineCap: "round" });
      context.stroke(path);
    }
  }

  /** A neutral picture of a person, a WebP file in base64; in the dark as it is. */
  const portrait = (webp, alt) => make("img", { src: `data:image/webp;base64,${webp}`, alt, className: "dark-light" });

  /** The colours of a map, see `canvasOf`, as a bar and the labels below it. */
  function fillBar(bar, labels, map) {
    bar.hidden = labels.hidden = !map;
    if (!map) return;
    const stops = Array.from({ length: 17 }, (_, n) => {
      const at = 3 * Math.min(255, 16 * n);
      return `rgb(${map.colours.slice(at, at + 3).join(" ")} / ${Math.round(100 * STRENGTH * map.cover(n / 16))}%)`;
    });
    bar.style.backgroundImage = `linear-gradient(to right, ${stops.join(", ")})`;
    labels.replaceChildren(...map.labels.map((text) => make("span", {}, text)));
  }

  // --- data

  function readFaces(data, core) {
    const { size } = data;
    const pixels = core.decodeBase64(data.pixels), packed = core.decodeBase64(data.parts);
    const regions = core.decodeBase64(data.regions), area = size * size;
    const colours = Object.fromEntries(Object.entries(data.colours).map(([k, v]) => [k, core.decodeBase64(v)]));
    const region = (at) => Uint8Array.from({ length: area }, (_, i) => (regions[at + (i >> 3)] >> (7 - (i & 7))) & 1);
    const faces = data.faces.map((face, n) => {
      const parts = Uint8Array.from({ length: area }, (_, i) => {
        const both = packed[(n * area + i) >> 1];
        return i & 1 ? both & 15 : both >> 4;
      });
      return { ...face, pixels: pixels.subarray(3 * n * area, 3 * (n + 1) * area), parts, region };
    });
    return { ...data, faces, colours, templates: new Float32Array(core.decodeBase64(data.templates).buffer) };
  }

  // --- the explorer

  class Explorer {
    constructor(root, core, data, worker) {
      Object.assign(this, { root, core, data, worker, size: data.size });
      const { settings } = data;
      this.settings = { delta: settings.delta, scale: settings.scale, scaleMin: settings.scale_min,
        scaleMax: settings.scale_max, form: settings.form, centre: settings.centre, share: settings.fraction };
      this.book = { ...this.settings }; // what the figures of the book use
      this.settings.delta = data.delta_shown; // small, so that more than the peak of the map can be seen
      this.opening = { ...this.settings };
      this.controls = {}; // name of a setting -> function that moves its control to it
      this.brush = { ink: "black", radius: 7, x: 56, y: 56, down: false, shown: false };
      this.map = "sdd";
      this.truth = false;
      this.sent = 0; // the number of the newest request
      this.shown = 0; // of the last maps shown, or of the last request for other people; what is older comes too late
      this.judging = false; // whether the newest request asks for the disc
      this.answer = null; // the newest maps of these people; in a stroke, of a moment ago
      this.original = null; // probabilities of the picture as it was made
      this.disc = null; // the pixels of the last disc
      worker.onmessage = ({ data: message }) => this.receive(message);
      worker.onerror = (event) => this.say(`The worker stopped: ${event.message}. Load the page again.`, 0);
      this.build();
      this.choose(0);
    }

    // --- choosing and asking

    choose(index) {
      this.face = this.data.faces[index];
      this.pixels = this.face.pixels.slice();
      this.places = this.core.places(this.face.parts, this.data.part_names, this.size);
      Object.assign(this, { history: [], target: null, rivals: null, original: null, answer: null, masked: null, judged: null });
      this.rule = "likely"; // how the rivals are chosen, for another target too: likely, family or hand
      this.marked = []; // those marked by hand, of whom a target may be one
      this.map = "sdd";
      this.enable(false);
      this.draw();
      this.askAnew();
      this.match.ask(this.face.identity);
    }

    get painted() { return this.pixels.some((value, i) => value !== this.face.pixels[i]); }

    get painting() { return this.brush.pointer != null || this.brush.down; }

    /** Ask for the picture; until the first answer for the picture as it was made, which decides whom it is about. */
    ask() {
      if (this.rivals && !this.rivals.length) {
        this.root.removeAttribute("aria-busy");
        this.shown = ++this.sent; // what is under way answers for rivals that are no longer marked
        this.say("Mark at least one rival: a map says what the target has and its rivals have not.", 0);
        return;
      }
      this.root.setAttribute("aria-busy", "true");
      this.judging = !this.painting;
      this.worker.postMessage({ id: ++this.sent, pixels: this.original ? this.pixels : this.face.pixels, target: this.target,
        rivals: this.rivals, topK: this.data.settings.top_k, judge: this.judging, temperature: this.data.temperature,
        ...this.settings });
    }

    /** Ask about another face, target or rivals, or for the first time about paint: earlier answers are of no use. */
    askAnew() {
      this.shown = this.sent;
      this.ask();
    }

    receive(message) {
      if (message.kind === "matched") return void this.match.show(message);
      // Maps are shown while newer ones are under way, or a long stroke would show none; what follows them is not.
      if (message.kind === "maps" ? message.id <= this.shown : message.id !== this.sent) return;
      if (message.kind === (this.judging ? "judged" : "masked") || message.kind === "error") this.root.removeAttribute("aria-busy");
      if (message.kind === "error") {
        this.say(`Cannot show this: ${message.message}.`, 0);
        return;
      }
      if (message.kind === "maps") {
        this.shown = message.id;
        Object.assign(this, { answer: message, masked: null, judged: null });
        if (message.passes) this.forwardTime = message.milliseconds / message.passes;
        if (!this.original) this.begun(message);
      } else if (message.kind === "masked") this.masked = message;
      else {
        this.judged = message;
        this.disc = message.disc;
      }
      this.draw();
      this.fill();
      this.guess.heard();
    }

    /** Take over what the first answer for a face says of the picture as it was made. */
    begun({ probabilities, classes }) {
      this.original = probabilities;
      const [target, ...rivals] = classes;
      Object.assign(this, { target, rivals });
      this.listClasses();
      this.enable(true);
      if (this.painted) this.askAnew();
    }

    /** Free or bar the controls that mean nothing before a face's first answer. */
    enable(on) {
      for (const control of this.panel.querySelectorAll(":is(.xe-classes, .xe-drawn) :is(select, button, input)")) control.disabled = !on;
    }

    // --- controls

    build() {
      const d = this.data;
      const families = [...new Set(d.family)].map((family) => {
        const members = d.faces.map((face, n) => [face, n]).filter(([face]) => d.family[face.identity] === family);
        return make("span", { className: "xe-family" }, ...members.map(([face, n]) => this.thumbnail(face, n)));
      });
      this.canvas = make("canvas", { width: SIDE, height: SIDE, id: "xe-canvas", className: "xe-canvas", tabIndex: 0, role: "application",
        "aria-roledescription": "picture to paint on", "aria-describedby": "xe-say" });
      this.listenToBrush();
      this.mapChoice = make("select", { id: "xe-map", onchange: (e) => {
        this.map = e.target.value;
        this.draw();
        this.tell();
      } });
      this.bar = make("div", { className: "xe-bar" });
      this.barLabels = make("div", { className: "xe-bar-labels" });
      this.truthText = make("p", { className: "xe-note", id: "xe-truth-text", role: "status", "aria-live": "polite" });
      this.verdictText = make("p", { className: "xe-verdict", id: "xe-verdict", role: "status", "aria-live": "polite" });
      this.sayText = make("p", { className: "xe-say", id: "xe-say", role: "status", "aria-live": "polite" });
      this.brushText = make("p", { className: "xe-hidden", role: "status", "aria-live": "polite" });
      this.timeText = make("p", { className: "xe-note xe-time" });
      this.targetChoice = make("select", { id: "xe-target", onchange: (e) => this.setTarget(Number(e.target.value)) });
      this.rivalList = make("div", { className: "xe-rivals", role: "group", "aria-labelledby": "xe-rivals-title" });
      this.table = make("table", { className: "xe-table" });
      this.tiles = ["region", "disc"].flatMap((area) => ["deletion", "retention"].map((kind) => ({ area, kind, text: make("p"),
        canvas: make("canvas", { width: this.size, height: this.size, role: "img", "aria-label": `${kind} of the ${area}` }) })));

      const stage = make("div", { className: "xe-stage" },
        this.canvas,
        make("div", { className: "xe-row xe-drawn" }, make("label", { for: "xe-map" }, "Drawn over it"), this.mapChoice),
        this.bar, this.barLabels,
        this.check("xe-top", "Outline the top share", true, (on) => { this.showTop = on; }),
        make("div", { className: "xe-open" },
          this.check("xe-truth", "Outline where they truly differ", false, (on) => { this.truth = on; }),
          this.truthText));
      this.showTop = true;
      const classes = make("div", { className: "xe-classes" },
        make("div", { className: "xe-row" }, make("label", { for: "xe-target" }, "Target"), this.targetChoice),
        make("p", { className: "xe-label", id: "xe-rivals-title" }, "Rivals"),
        make("div", { className: "xe-buttons" },
          this.button("xe-likely", "The most probable", () => this.setRule("likely")),
          this.button("xe-family", "The look-alikes", () => this.setRule("family"))),
        this.rivalList);
      const settings = make("div", { className: "xe-settings" },
        this.shareSlider(),
        this.button("xe-start", "Back to the opening settings", () => this.startAgain()),
        make("details", { className: "xe-expert" },
          make("summary", {}, "Constants of the map, for experts"),
          make("p", { className: "xe-note" }, "They change how sharp the map is and how the rivals are joined. Nothing above needs them."),
          this.slider("delta", "Amplification δ", -2, 2),
          this.slider("scale", "Scale k", -1, 2),
          this.slider("scaleMin", "Smallest s", -1, 1),
          (this.scaleText = make("p", { className: "xe-note", id: "xe-scale-text" })),
          this.formChoice(),
          this.button("xe-book", "The settings of the book", () => this.setAll(this.book))));
      const masked = make("div", { className: "xe-masked" },
        ...this.tiles.map(({ canvas, text }) => make("div", {}, canvas, text)), this.verdictText);
      for (const part of [masked, classes, settings, this.sayText]) part.classList.add("xe-open");
      this.match = explorerMatch(this, make, { canvasOf, fillBar, outline, portrait, number, side: SIDE, ink: INK.truth });
      this.guess = explorerGuess(this, make, portrait);
      this.panel = make("div", { className: "xe" },
        make("fieldset", { className: "xe-people xe-open" }, make("legend", {}, "The person in the picture"), ...families, this.passText()),
        this.match.element,
        make("div", { className: "xe-main" },
          make("div", { className: "xe-column" }, stage, this.paintBox(), masked),
          make("div", { className: "xe-column" }, this.guess.element, this.sayText,
            make("div", { className: "xe-scroll xe-open" }, this.table), classes, settings)),
        this.brushText, this.timeText);
      this.root.replaceChildren(this.panel, this.root.querySelector("figure")); // for paper, see explore.css
    }

    /** For how many of the pictures the rule would show the map at the opening settings, and for which it opens. */
    passText() {
      const { passes, rule } = this.data, count = passes.filter(Boolean).length;
      return make("p", { className: "xe-note", id: "xe-passes" },
        `At the opening settings, the rule of chapter ${rule.chapter} would show the map of ${count} of these ${passes.length} pictures. ` +
        `The explorer opens on a picture whose map it would ${passes[0] ? "show" : "hold back"}.`);
    }

    thumbnail(face, n) {
      const id = `xe-face-${n}`, name = this.data.names[face.identity];
      const input = make("input", { type: "radio", name: "xe-face", id, checked: n === 0, onchange: () => this.choose(n) });
      const picture = canvasOf(face.pixels, this.size);
      picture.setAttribute("aria-hidden", "true");
      return make("label", { for: id, title: name }, input, picture, make("span", { className: "xe-hidden" }, name));
    }

    button(id, text, onclick) { return make("button", { id, type: "button", onclick }, text); }

    check(id, text, checked, change) {
      const input = make("input", { type: "checkbox", id, checked,
        onchange: (e) => { change(e.target.checked); this.draw(); this.tellTruth(); } });
      return make("label", { className: "xe-check", for: id }, input, " ", text);
    }

    /** A slider over powers of ten: twenty steps to each. */
    slider(name, text, low, high) {
      const output = make("output", { for: `xe-${name}` });
      const input = make("input", { type: "range", id: `xe-${name}`, min: low, max: high, step: 0.05,
        value: Math.log10(this.settings[name]) });
      const show = () => {
        output.textContent = number(this.settings[name]);
        input.setAttribute("aria-valuetext", output.textContent);
      };
      input.oninput = () => {
        this.settings[name] = 10 ** Number(input.value);
        show();
        this.ask();
      };
      this.controls[name] = () => { input.value = Math.log10(this.settings[name]); show(); };
      show();
      return make("div", { className: "xe-slider" }, make("label", { for: input.id }, text), output, input);
    }

    shareSlider() {
      const output = make("output", { for: "xe-share" });
      const input = make("input", { type: "range", id: "xe-share", min: 1, max: 90, step: 1, value: 100 * this.settings.share });
      const show = () => {
        output.textContent = `${Math.round(100 * this.settings.share)}\u00a0%`;
        input.setAttribute("aria-valuetext", output.textContent);
      };
      input.oninput = () => { this.settings.share = Number(input.value) / 100; show(); this.ask(); };
      this.controls.share = () => { input.value = 100 * this.settings.share; show(); };
      show();
      return make("div", { className: "xe-slider" }, make("label", { for: "xe-share" }, "Top share"), output, input);
    }

    formChoice() {
      const select = make("select", { id: "xe-form", onchange: () => { this.settings.form = select.value; this.ask(); } },
        ...["sum", "product", "local_softmax"].map((form) => make("option", { value: form }, form.replace("_", " "))));
      this.controls.form = () => { select.value = this.settings.form; };
      this.controls.form();
      return make("div", { className: "xe-row" }, make("label", { for: "xe-form" }, "Form"), select);
    }

    setAll(settings) {
      Object.assign(this.settings, settings);
      for (const show of Object.values(this.controls)) show();
      this.ask();
    }

    /** All classes but the target, the most probable in the picture as it was made first. */
    byProbability() {
      return this.data.names.map((_, n) => n).filter((n) => n !== this.target).sort((a, b) => this.original[b] - this.original[a]);
    }

    relatives() { return this.byProbability().filter((n) => this.data.family[n] === this.data.family[this.target]); }

    setTarget(target) {
      this.target = target;
      this.rivals = this.ruled();
      this.listClasses();
      this.askAnew();
    }

    /** The rivals of the target by the rule that is set; where it finds none, the most probable. */
    ruled() {
      const most = this.byProbability().slice(0, this.data.settings.top_k - 1);
      const found = { likely: most, family: this.relatives(), hand: this.marked.filter((n) => n !== this.target) }[this.rule];
      return found.length ? found : most;
    }

    setRule(rule) {
      if (rule === "family" && !this.relatives().length) return this.say("Nobody here looks like the target: its family has one member.", 0);
      this.rule = rule;
      this.setTarget(this.target);
    }

    /** Settings, target, rivals and map as at the beginning; the paint stays. */
    startAgain() {
      Object.assign(this, { map: "sdd", rule: "likely" });
      if (this.original) {
        this.target = argmax(this.original);
        this.rivals = this.ruled();
        this.listClasses();
      }
      this.shown = this.sent;
      this.setAll(this.opening);
    }

    /** The target's choice, the list of rivals and the choice of maps, for the picture and the classes chosen. */
    listClasses() {
      const names = this.data.names;
      const all = names.map((_, n) => n).sort((a, b) => this.original[b] - this.original[a]);
      const label = (n) => `${names[n]} (${this.core.percent(this.original[n])})`;
      this.targetChoice.replaceChildren(...all.map((n) => make("option", { value: n, selected: n === this.target }, label(n))));
      const focused = document.activeElement && document.activeElement.id;
      this.rivalList.replaceChildren(...this.byProbability().map((n) => {
        const input = make("input", { type: "checkbox", id: `xe-rival-${n}`, checked: this.rivals.includes(n) });
        input.onchange = () => {
          this.rivals = this.marked = input.checked ? [...this.rivals, n] : this.rivals.filter((other) => other !== n);
          this.rule = "hand";
          this.listMaps();
          this.askAnew();
          this.tellTruth();
        };
        return make("label", { className: "xe-check", for: input.id }, input, " ", label(n));
      }));
      if (focused && focused.startsWith("xe-rival-")) document.getElementById(focused)?.focus();
      this.listMaps();
      this.tellTruth();
    }

    listMaps() {
      const names = this.data.names;
      const people = this.guess.secret ? [] : [this.target, ...this.rivals];
      const options = [["sdd", "the SDD map"], ...people.map((n) => [String(n), `evidence for ${names[n]}`]), ["none", "nothing"]];
      if (!options.some(([value]) => value === this.map)) this.map = "sdd";
      this.mapChoice.replaceChildren(...options.map(([value, text]) => make("option", { value, selected: value === this.map }, text)));
    }

    // --- painting

    paintBox() {
      const inks = [["black", "black"], ["grey", "grey"], ["pick", "the colour where a stroke begins"],
        ["rival", "the first rival's face"], ["original", "rub out"]];
      const radios = inks.map(([value, text]) => make("label", { className: "xe-check", for: `xe-ink-${value}` },
        make("input", { type: "radio", name: "xe-ink", id: `xe-ink-${value}`, checked: value === this.brush.ink,
          onchange: () => { this.brush.ink = value; } }), " ", text));
      const output = make("output", { for: "xe-radius" }, String(this.brush.radius));
      const size = make("input", { type: "range", id: "xe-radius", min: 2, max: 20, step: 1, value: this.brush.radius,
        oninput: (e) => { this.brush.radius = Number(e.target.value); output.textContent = e.target.value; this.draw(); } });
      this.undoButton = this.button("xe-undo", "Undo", () => this.undo());
      this.clearButton = this.button("xe-clear", "Clear", () => this.clear());
      return make("fieldset", { className: "xe-paint xe-open" },
        make("legend", {}, "Paint over the face"),
        make("div", { className: "xe-inks" }, ...radios),
        make("div", { className: "xe-slider" }, make("label", { for: "xe-radius" }, "Brush, pixels"), output, size),
        make("div", { className: "xe-buttons" }, this.undoButton, this.clearButton),
        make("p", { className: "xe-note" }, "With finger or mouse on the face; or with the keyboard: arrows move the brush " +
          "(with Shift further), Space paints a spot, P puts the brush down or lifts it, U undoes."));
    }

    listenToBrush() {
      const canvas = this.canvas, brush = this.brush;
      const place = (event) => {
        const box = canvas.getBoundingClientRect();
        return [((event.clientX - box.left) / box.width) * this.size, ((event.clientY - box.top) / box.height) * this.size];
      };
      canvas.addEventListener("pointerdown", (event) => {
        if (event.button || this.guess.secret) return;
        canvas.setPointerCapture(event.pointerId);
        brush.pointer = event.pointerId;
        brush.shown = false;
        this.begin(...place(event));
      });
      canvas.addEventListener("pointermove", (event) => {
        if (brush.pointer !== event.pointerId) return;
        const steps = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
        for (const step of steps.length ? steps : [event]) this.strokeTo(...place(step));
        this.draw();
        this.ask();
      });
      for (const end of ["pointerup", "pointercancel"]) {
        canvas.addEventListener(end, (event) => {
          if (brush.pointer !== event.pointerId) return;
          brush.pointer = null;
          this.ask(); // a stroke at rest is judged
        });
      }
      canvas.addEventListener("blur", () => { brush.shown = false; this.lift(); this.draw(); });
      canvas.addEventListener("focus", () => { brush.shown = brush.pointer == null; this.draw(); });
      canvas.addEventListener("keydown", (event) => this.key(event));
    }

    key(event) {
      if (this.guess.secret) return;
      const brush = this.brush, step = event.shiftKey ? 8 : 2;
      const where = () => { this.brushText.textContent = `Brush ${brush.down ? "down " : ""}over the ${this.placeAt(brush.x, brush.y)}`; };
      const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
      const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
      if (key === "z" && (event.ctrlKey || event.metaKey)) this.undo();
      else if (event.ctrlKey || event.metaKey || event.altKey) return; // the browser's
      else if (key === "u") this.undo();
      else if (moves[key]) {
        const [dx, dy] = moves[key];
        const keep = (v) => Math.min(Math.max(v, 0), this.size);
        const [x, y] = [keep(brush.x + dx), keep(brush.y + dy)];
        if (brush.down) { this.strokeTo(x, y); this.ask(); }
        Object.assign(brush, { x, y });
        where();
      } else if (key === " ") this.begin(brush.x, brush.y);
      else if (key === "p") {
        if (brush.down) this.lift();
        else {
          brush.down = true;
          this.begin(brush.x, brush.y);
        }
        where();
      } else if (key === "Escape") this.lift();
      else return;
      event.preventDefault();
      brush.shown = true;
      this.draw();
    }

    /** Lift the brush of the keyboard. */
    lift() {
      if (!this.brush.down) return;
      this.brush.down = false;
      this.ask();
    }

    pixelAt(x, y) {
      const inside = (v) => Math.min(Math.max(Math.floor(v), 0), this.size - 1);
      return inside(y) * this.size + inside(x);
    }

    placeAt(x, y) { return this.places[this.pixelAt(x, y)]; }

    remember() {
      this.history.push(this.pixels.slice());
      if (this.history.length > 60) this.history.shift();
    }

    /** Begin a stroke with one spot. */
    begin(x, y) {
      this.remember();
      const i = 3 * this.pixelAt(x, y);
      this.brush.colour = { black: [0, 0, 0], grey: [128, 128, 128] }[this.brush.ink] || [...this.pixels.subarray(i, i + 3)];
      Object.assign(this.brush, { x, y });
      this.spot(x, y);
      this.draw();
      this.ask();
    }

    strokeTo(x, y) {
      const { x: x0, y: y0, radius } = this.brush;
      const steps = Math.max(1, Math.ceil((3 * Math.hypot(x - x0, y - y0)) / radius));
      for (let n = 1; n <= steps; n++) this.spot(x0 + ((x - x0) * n) / steps, y0 + ((y - y0) * n) / steps);
      Object.assign(this.brush, { x, y });
    }

    spot(x, y) {
      const { radius, ink, colour } = this.brush, size = this.size;
      const rival = this.rivals && this.data.faces.find((face) => face.identity === this.rivals[0]);
      const source = { original: this.face.pixels, rival: rival ? rival.pixels : null }[ink];
      for (let py = Math.max(0, Math.ceil(y - radius - 0.5)); py < Math.min(size, y + radius); py++) {
        for (let px = Math.max(0, Math.ceil(x - radius - 0.5)); px < Math.min(size, x + radius); px++) {
          if (Math.hypot(px + 0.5 - x, py + 0.5 - y) > radius) continue;
          const i = 3 * (py * size + px);
          this.pixels.set(source ? source.subarray(i, i + 3) : colour, i);
        }
      }
    }

    undo() {
      if (!this.history.length) return;
      this.pixels = this.history.pop();
      this.draw();
      this.ask();
    }

    clear() {
      this.remember();
      this.pixels = this.face.pixels.slice();
      this.draw();
      this.ask();
    }

    // --- drawing

    draw() {
      const { size, answer } = this, context = this.canvas.getContext("2d");
      const values = answer && this.mapValues();
      context.imageSmoothingEnabled = true;
      context.imageSmoothingQuality = "high";
      context.drawImage(canvasOf(this.pixels, size, values), 0, 0, SIDE, SIDE);
      if (answer && this.showTop) outline(context, answer.mask, size, INK.top);
      if (this.truth) for (const { region } of this.differences()) outline(context, region, size, INK.truth);
      if (this.brush.shown) this.drawBrush(context);
      fillBar(this.bar, this.barLabels, values);
      const name = this.data.names[this.face.identity];
      const { painted } = this;
      this.canvas.setAttribute("aria-label", this.guess.secret ? "Face of the person to be guessed" : `Face of ${name}${painted ? ", painted over" : ""}. ` +
        "Arrow keys move the brush, Space paints, P puts it down, U undoes");
      this.undoButton.disabled = !this.history.length;
      this.clearButton.disabled = !painted;
    }

    /** What is drawn over the picture: shares of the colour scale, its colours and the labels of its bar. */
    mapValues() {
      const { log, large, classes } = this.answer;
      if (this.map === "none") return null;
      if (this.map === "sdd") {
        return { of: (i) => Math.exp(log[i]), cover: (share) => share, colours: this.data.colours.sdd, labels: ["0", "SDD, share of its maximum", "1"] };
      }
      const which = classes.indexOf(Number(this.map));
      if (which < 0) return null; // the answer is older than the choice
      let high = 0;
      for (const map of large) for (const value of map) high = Math.max(high, Math.abs(value));
      return { of: (i) => 0.5 + large[which][i] / high / 2, cover: (share) => Math.abs(2 * share - 1), colours: this.data.colours.cam,
        labels: [`−${number(high)}`, "against · CAM, logit · for", number(high)] };
    }

    drawBrush(context) {
      const step = SIDE / this.size;
      for (const [width, ink] of [[4, "#000"], [2, this.brush.down ? INK.top : "#fff"]]) {
        context.beginPath();
        context.arc(this.brush.x * step, this.brush.y * step, this.brush.radius * step, 0, 2 * Math.PI);
        Object.assign(context, { lineWidth: width, strokeStyle: ink });
        context.stroke();
      }
    }

    /** The true differences between the person in the picture and the look-alikes among target and rivals. */
    differences() {
      const compared = this.rivals ? [this.target, ...this.rivals] : [];
      return compared.filter((n) => this.face.differences[n]).map((n) => {
        const { parts, at, visible } = this.face.differences[n];
        return { other: n, parts, visible, region: this.face.region(at) };
      });
    }

    tellTruth() {
      const found = this.differences(), { names } = this.data;
      if (!this.truth) {
        this.truthText.textContent = "";
        return;
      }
      const ways = new Map(); // how they differ -> from whom
      for (const { other, parts, visible } of found) {
        const way = `in ${list(parts)}${visible ? "" : " (hidden in this picture)"}`;
        ways.set(way, [...(ways.get(way) || []), names[other]]);
      }
      this.truthText.textContent = found.length
        ? `${names[this.face.identity]} differs from ${[...ways].map(([way, others]) => `${list(others)} ${way}`).join("; from ")}.`
        : "None of the people compared is of the family of the person in the picture: they differ nearly everywhere. " +
          "Choose the look-alikes as rivals.";
      this.draw();
    }

    // --- numbers and words

    fill() {
      const { answer, masked, judged, original, data, target, rivals } = this;
      const share = `${Math.round(100 * this.settings.share)}\u00a0%`;
      const columns = [["as made", original]];
      if (this.painted) columns.push(["painted", answer.probabilities]);
      columns.push([`without top ${share}`, masked && masked.deletion], [`only top ${share}`, masked && masked.retention]);
      const cell = (p) => {
        const td = make("td", {}, p === null ? "…" : this.core.percent(p));
        if (p !== null) td.style.setProperty("--share", `${100 * p}%`);
        return td;
      };
      const others = columns.map(([, p]) => p && argmax(p)).filter((n) => n !== null && n !== target && !rivals.includes(n));
      const row = (title, cells, className = "") => make("tr", { className }, make("th", { scope: "row" }, title), ...cells);
      this.table.replaceChildren(
        make("caption", {}, "Probabilities"),
        make("thead", {}, make("tr", {}, make("td"), ...columns.map(([title]) => make("th", { scope: "col" }, title)))),
        make("tbody", {},
          ...[target, ...rivals, ...new Set(others)].map((n) => row(data.names[n], columns.map(([, p]) => cell(p && p[n])), n === target ? "xe-target" : "")),
          row("named", columns.map(([, p]) => make("td", { className: "xe-named" }, p ? data.names[argmax(p)] : "…")))));
      for (const { area, kind, canvas, text } of this.tiles) {
        const [mask, told, name] = area === "region" ? [answer.mask, masked, `the top ${share}`] : [this.disc, judged, "a disc as large"];
        if (mask) {
          const picture = canvasOf(this.core.blacken(this.pixels, mask, kind === "deletion" ? 1 : 0), this.size);
          canvas.getContext("2d").drawImage(picture, 0, 0);
        }
        const what = `${kind === "deletion" ? "without" : "only"} ${name}`, says = told ? this.named(told[kind]) : "…";
        canvas.setAttribute("aria-label", `The picture ${what}: ${says}`);
        text.textContent = `${what}: ${says}`;
      }
      this.verdictText.replaceChildren(...this.verdict());
      const { free, used } = answer.s;
      const bound = used > free ? "the smallest" : used < free ? "the largest" : "";
      this.scaleText.textContent = `s = ${number(used)}${bound ? `, ${bound} allowed; k alone would give ${number(free)}` : ""}`;
      if (this.forwardTime) {
        this.timeText.textContent = `The last pass of the network took ${Math.round(this.forwardTime)} ms in this browser.`;
      }
      this.tell();
    }

    tell() { if (this.masked && this.rivals.length && !this.guess.secret) this.say(this.sentence()); }

    /** What the rule says of the map that is shown all the same, with a link to its chapter. */
    verdict() {
      const { judged, data: { rule } } = this;
      if (!judged) return [];
      if (!judged.verdict) return ["No verdict: it judges maps of the predicted person."];
      const { show, reason } = judged.verdict, why = reason.slice(reason.indexOf(": "));
      return [`${show ? "✓" : "✗"} The rule of `, make("a", { href: rule.page }, `chapter ${rule.chapter}`),
        ` would ${show ? "show this map" : "hold this map back"}${why}`];
    }

    named(probabilities) {
      const best = argmax(probabilities);
      return `${this.data.names[best]}, ${this.core.percent(probabilities[best])}`;
    }

    /** The picture, its map and what the masks do, as a reader who sees none of them needs it. */
    sentence() {
      const { answer, masked, core, data, face, painted } = this;
      const named = argmax(answer.probabilities);
      const right = named === face.identity ? "right" : `wrong: this is ${data.names[face.identity]}`;
      const before = painted && argmax(this.original) !== named ? ` It named ${data.names[argmax(this.original)]} before you painted.` : "";
      const cam = answer.classes.indexOf(Number(this.map));
      const [map, values] = cam < 0 ? ["SDD map", answer.log] : [`evidence for ${data.names[answer.classes[cam]]}`, answer.large[cam]];
      const where = core.inWords(core.strongest(core.topMask(values, 0.05), this.places));
      return `The network names ${this.named(answer.probabilities)} (${right}).${before} ` +
        `The ${map} is strongest over ${where}. ` +
        `Without the top ${Math.round(100 * this.settings.share)}\u00a0%: ${this.named(masked.deletion)}; ` +
        `with it alone: ${this.named(masked.retention)}.`;
    }

    /** Say something to everyone; a reader with a screen reader hears it once the controls rest. */
    say(text, wait = 500) {
      clearTimeout(this.saying);
      this.saying = setTimeout(() => { if (this.sayText.textContent !== text) this.sayText.textContent = text; }, wait);
    }
  }

  // --- starting

  function startWorker(data, weights) {
    const source = `"use strict";(${explorerCore})().startWorker(self);`;
    const worker = new Worker(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
    return new Promise((resolve, reject) => {
      worker.onmessage = () => resolve(worker);
      worker.onerror = (event) => reject(new Error(event.message || "the worker did not start"));
      worker.postMessage({ kind: "start", description: weights.network, weights: weights.binary, size: data.size });
    });
  }

  async function start() {
    const root = document.getElementById("explorer");
    if (!root) return;
    const status = make("p", { className: "xe-note", role: "status" }, "The explorer is loading its network and its faces.");
    root.prepend(status);
    try {
      await Promise.all(["explore/weights.js", "explore/faces.js"].map(loadScript));
      const core = explorerCore();
      const data = readFaces(explorerFaces, core);
      root.explorer = new Explorer(root, core, data, await startWorker(data, explorerWeights));
    } catch (error) {
      status.textContent = `The explorer cannot start: ${error.message}.`;
    }
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
