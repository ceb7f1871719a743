/* Two pictures, one question: do they match, and why? A probe beside a second picture and the most similar other one, and
   the maps of xfrlib.explain_match over the probe. */
"use strict";

/** The box of the explorer `e` that compares two pictures, and the button that opens it; the rest is explore.js's. */
function explorerMatch(e, make, { canvasOf, fillBar, outline, portrait, number, side, ink }) {
  const { core, data, size } = e, { names, family } = data, topK = Math.min(data.settings.top_k, names.length);
  let sent = 0, open = false, own = 0, found = null;

  const button = make("button", { id: "xe-compare", type: "button", className: "xe-open", onclick: () => turn(true) }, "Compare two pictures");
  const back = make("button", { id: "xe-match-back", type: "button", onclick: () => turn(false) }, "Back to the explorer");
  const second = make("select", { id: "xe-second", onchange: (event) => ask(Number(event.target.value)) });
  const truth = make("input", { type: "checkbox", id: "xe-match-truth", onchange: () => draw() });
  const says = make("p", { className: "xe-say", id: "xe-match-says", role: "status", "aria-live": "polite" });
  const pictures = make("div", { className: "xe-match-pictures" });
  const inside = [
    make("div", { className: "xe-buttons" }, back),
    make("p", { className: "xe-note" }, "The picture that you chose above is the probe. The second picture is one of a gallery, in which " +
      "everybody has one neutral picture, as in a passport. The network turns a picture into a list of numbers, its embedding. Two embeddings " +
      "have a similarity, at most 1. The person of the probe is its mate; all others are non-mates, and those of the same family its " +
      "look-alikes. Two pictures match here if the gallery has no other that is more similar to the probe."),
    make("div", { className: "xe-row" }, make("label", { for: "xe-second" }, "Second picture"), second),
    says, pictures,
    make("label", { className: "xe-check", for: "xe-match-truth" }, truth, " Outline where they truly differ")];
  const element = make("div", { className: "xe-match", role: "group", "aria-label": "Two pictures compared" });

  function turn(on) {
    open = on;
    e.panel.classList.toggle("xe-matching", on);
    element.replaceChildren(...(on ? inside : []));
    if (on) ask(e.face.identity);
    (on ? second : button).focus();
  }

  /** Compare the probe with the picture of a person. */
  function ask(person) {
    own = person;
    if (!open) return;
    element.setAttribute("aria-busy", "true");
    e.worker.postMessage({ kind: "match", id: ++sent, pixels: e.pixels, templates: data.templates, own, topK });
  }

  function show(message) {
    if (message.id !== sent) return;
    element.removeAttribute("aria-busy");
    found = message;
    const order = [...found.similarities.keys()].sort((a, b) => found.similarities[b] - found.similarities[a]);
    second.replaceChildren(...order.map((n) => make("option", { value: n, selected: n === own }, 
      `${names[n]}${n === e.face.identity ? ", its mate" : alike(n) ? ", a look-alike" : ""}: ${similarity(n)}`)));
    draw();
    says.textContent = sentence();
  }

  const similarity = (n) => found.similarities[n].toFixed(3);
  const alike = (n) => family[n] === family[e.face.identity];

  /** A name with what the person is to the probe. */
  function called(n) {
    const { identity } = e.face;
    if (n === identity) return `${names[n]}, its mate`;
    const nearest = found.similarities.every((value, k) => k === identity || value <= found.similarities[n]);
    return `${names[n]}, ${nearest ? "the nearest" : "a"} non-mate${alike(n) ? " and a look-alike" : ""}`;
  }

  /** What is drawn over the probe: a signed map on its own scale, or SDD. */
  function signed(values) {
    const high = values.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-9);
    return { of: (i) => 0.5 + values[i] / high / 2, cover: (share) => Math.abs(2 * share - 1), colours: data.colours.cam,
      labels: [`−${number(high)}`, "similarity", number(high)] };
  }

  function divergence(log) {
    const power = core.gentlePower(log);
    return { of: (i) => Math.exp(power * log[i]), cover: (share) => share, colours: data.colours.sdd,
      labels: ["0", "share of its maximum", "1"] };
  }

  /** Where the probe's person truly differs from who of the two compared is a look-alike: its part names and pixels. */
  function differences() {
    return found.classes.slice(0, 2).map((n) => e.face.differences[n]).filter(Boolean);
  }

  function draw() {
    const [, other] = found.classes, name = names[e.face.identity], probe = `${name}${e.painted ? ", painted over" : ""}`;
    const over = (map, title, words) => {
      const canvas = make("canvas", { width: side, height: side, role: "img", "aria-label": `${title}, drawn over the probe` });
      const context = canvas.getContext("2d");
      context.imageSmoothingQuality = "high";
      context.drawImage(canvasOf(e.pixels, size, map), 0, 0, side, side);
      if (map && truth.checked) for (const { at } of differences()) outline(context, e.face.region(at), size, ink);
      const bar = make("div", { className: "xe-bar" }), labels = make("div", { className: "xe-bar-labels" });
      fillBar(bar, labels, map);
      return make("div", {}, canvas, bar, labels, make("p", {}, make("strong", {}, title), words));
    };
    const face = (n, title) => make("div", {}, portrait(data.portraits[n], `Neutral picture of ${names[n]}`),
      make("p", {}, make("strong", {}, title), `: ${called(n)}. Similarity ${similarity(n)}.`));
    pictures.replaceChildren(
      over(null, "Probe", `: ${probe}.`), face(own, "Second picture"), face(other, "Most similar other picture"),
      over(signed(found.map), `Map of the similarity to ${names[own]}`,
        `: its mean, ${similarity(own)}, and the constant, ${found.constant}, add up to the similarity.`),
      over(signed(found.difference), "CAM difference", `: the map of ${names[own]} less that of ${names[other]}. Its mean is the lead, ${lead()}.`),
      over(divergence(found.log), "SDD", `: what the map of ${names[own]} has and those of the ${topK - 1} most similar others have not.`));
  }

  const lead = () => (found.similarities[own] - found.similarities[found.classes[1]]).toFixed(3).replace("-", "−");

  function sentence() {
    const { identity } = e.face, [, other] = found.classes, gap = found.similarities[own] - found.similarities[other];
    const right = (gap > 0) === (own === identity);
    const [first, last] = gap > 0 ? [own, other] : [other, own];
    const sides = [[own, found.difference], [other, found.difference.map((value) => -value)]].map(([n, values]) => ({ n, values,
      most: values.reduce((most, value) => Math.max(most, value), 0) }));
    const strong = sides.filter(({ most }) => 5 * most > Math.max(...sides.map((one) => one.most))); // what is faint has no place
    const where = strong.map(({ n, values }) =>
      `what speaks most for ${names[n]} lies over ${core.inWords(core.strongest(core.topMask(values, 0.05), e.places))}`);
    return `The probe shows ${names[identity]}. Its similarity is ${similarity(own)} to ${called(own)}, and ${similarity(other)} to ` +
      `${called(other)}. ${names[first]} leads ${names[last]} by ${Math.abs(gap).toFixed(3)}: ` +
      `the two pictures ${gap > 0 ? "match" : "do not match"}, which is ${right ? "right" : "wrong"}. ` +
      `${where.join("; ").replace("w", "W")}${where.length ? "." : ""}`;
  }

  return { button, element, ask, show, get found() { return found; } };
}
