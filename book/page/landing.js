/* The picture of the landing page that can be moved: a slider from the face over two class activation maps to their
   divergence. Pictures and names are written by landing.py; without scripts, and on paper (landing.css), a static
   figure stands here. */
(function () {
  "use strict";
  var data = window.landingData;
  var still = document.querySelector("#fig-landing img");
  var folder = document.currentScript.src.replace(/[^/]*$/, "landing/");
  if (!data || !still) return;
  var a = data.names[0], b = data.names[1];
  var stops = [
    { name: "face", label: "the picture", says: "The network names " + a + " (" + data.chances[0] + "). Its closest rival is the look-alike " + b + " (" + data.chances[1] + ")." },
    { name: "target", label: "evidence for " + a, says: "Red speaks for " + a + ", blue against: the class activation map of the person named." },
    { name: "rival", label: "evidence for " + b, says: "The same for the look-alike " + b + ", on the same scale. Where both maps are red, neither says why it was not the other." },
    { name: "sdd", label: "what sets them apart", says: "What " + a + " has and " + b + " has not: the scaled directed divergence. Bright is where the evidence for " + a + " exceeds that for " + b + "." }
  ];

  function element(tag, attributes, parent) {
    var made = document.createElement(tag);
    for (var key in attributes) made.setAttribute(key, attributes[key]);
    if (parent) parent.appendChild(made);
    return made;
  }

  var root = element("div", { id: "landing", role: "group", "aria-label": "One decision, to be moved" });
  var stage = element("div", { "class": "stage", role: "img" }, root);
  var layers = stops.map(function (stop) {
    return element("img", { src: folder + stop.name + ".webp", alt: "", width: 448, height: 448 }, stage);
  });
  var outline = element("img", { src: folder + "differs.webp", alt: "", width: 448, height: 448, hidden: "" }, stage);
  var side = element("div", { "class": "side" }, root);
  var label = element("label", { "for": "landing-slider" }, side);
  label.textContent = "Move from the picture to what sets the two apart";
  var slider = element("input", { id: "landing-slider", type: "range", min: 0, max: 3, step: 0.05, value: 1 }, side);
  var marks = element("div", { "class": "marks" }, side);
  stops.forEach(function (stop, number) {
    var button = element("button", { type: "button" }, marks);
    button.textContent = stop.label;
    button.addEventListener("click", function () { slider.value = number; show(); });
  });
  var says = element("p", { "aria-live": "polite" }, side);
  var tick = element("label", { "class": "tick" }, side);
  var box = element("input", { type: "checkbox" }, tick);
  tick.appendChild(document.createTextNode(" outline where the two truly differ (" + data.parts.join(", ") + ")"));

  function show() {
    var value = Number(slider.value), nearest = Math.round(value);
    layers.forEach(function (layer, number) {
      layer.style.opacity = Math.max(0, Math.min(1, value - number + 1));
    });
    outline.hidden = !box.checked;
    if (says.textContent !== stops[nearest].says) says.textContent = stops[nearest].says;
    slider.setAttribute("aria-valuetext", stops[nearest].label);
    stage.setAttribute("aria-label", "A made face: " + stops[nearest].label);
    for (var i = 0; i < marks.children.length; i++) marks.children[i].setAttribute("aria-pressed", String(i === nearest));
  }

  slider.addEventListener("input", show);
  box.addEventListener("change", show);
  show();
  // What is hidden would not be there in time for paper, but it is large: it comes once all else has come.
  window.addEventListener("load", function () {
    (window.requestIdleCallback || setTimeout)(function () { still.loading = "eager"; });
  });
  (still.closest(".light-or-dark") || still.closest("a") || still).before(root); // before both variants of the picture
})();
