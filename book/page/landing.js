/* The picture of the landing page that can be moved: a slider from both faces of a decision over two maps to what sets
   them apart. Files are written by landing.py; without scripts, and on paper (landing.css), a still one is here. */
(function () {
  "use strict";
  var data = window.landingData;
  var still = document.querySelector("#fig-landing img");
  var folder = document.currentScript.src.replace(/[^/]*$/, "landing/");
  if (!data || !still) return;
  var a = data.names[0], b = data.names[1], here = data.chances[0], there = data.chances[1];
  var stops = [
    { name: "face", label: "the pictures", says: "Left: the network names " + a + " (" + here[0] + "), then the look-alike " + b + " (" + here[1] + "). Right: " + b + " in the same pose and light (" + b + " " + there[0] + ", " + a + " " + there[1] + ")." },
    { name: "target", label: "evidence for " + a, ends: ["against " + a, "CAM", "for " + a], says: "Red speaks for " + a + ", blue against: the class activation map (CAM) of " + a + " on both faces." },
    { name: "rival", label: "evidence for " + b, ends: ["against " + b, "CAM", "for " + b], says: "The same for " + b + ", on the same scale. What is red for both does not say why it was not the other." },
    { name: "sdd", label: "what sets them apart", ends: ["0", "SDD, amplified", "its maximum"], says: "What each has and the other has not: the scaled directed divergence (SDD). Bright is where the evidence for its own name exceeds that for the other. The line: what truly differs." }
  ];

  function element(tag, attributes, parent, text) {
    var made = document.createElement(tag);
    for (var key in attributes) made.setAttribute(key, attributes[key]);
    made.textContent = text || "";
    if (parent) parent.appendChild(made);
    return made;
  }

  var root = element("div", { id: "landing", role: "group", "aria-label": "One decision, to be moved" });
  var faces = element("div", { "class": "faces" }, root);
  var stages = data.names.map(function (name, number) {
    var face = element("div", {}, faces);
    var stage = element("div", { "class": "stage", role: "img" }, face);
    stops.map(function (stop) { return stop.name + number; }).concat("differs").forEach(function (file) {
      element("img", { src: folder + file + ".webp", alt: "", width: 448, height: 448 }, stage);
    });
    element("div", {}, face, ["explained: ", "look-alike: "][number] + name);
    return stage;
  });
  var bar = element("div", { "class": "bar" }, faces);
  var colours = element("div", {}, bar);
  var words = [0, 1, 2].map(function () { return element("span", {}, bar); });
  var side = element("div", { "class": "side" }, root);
  element("label", { "for": "landing-slider" }, side, "Move from the pictures to what sets the two apart");
  var slider = element("input", { id: "landing-slider", type: "range", min: 0, max: 3, step: 0.05, value: 0 }, side);
  var marks = element("div", { "class": "marks" }, side);
  stops.forEach(function (stop, number) {
    var button = element("button", { type: "button" }, marks, stop.label);
    button.addEventListener("click", function () { slider.value = number; show(); });
  });
  var says = element("p", { "aria-live": "polite" }, side);
  var tick = element("label", {}, side);
  var box = element("input", { type: "checkbox" }, tick);
  tick.append(" outline where the two truly differ (" + data.parts.join(", ") + ") at every step");

  function show() {
    var value = Number(slider.value), nearest = Math.round(value), map = stops[nearest || 1];
    stages.forEach(function (stage, number) {
      for (var i = 0; i < stage.children.length; i++) { // the last, the outline, comes with the last map
        var opacity = i < stops.length ? value - i + 1 : box.checked ? 1 : value - 2;
        stage.children[i].style.opacity = Math.max(0, Math.min(1, opacity));
      }
      stage.setAttribute("aria-label", data.names[number] + ", a made face: " + stops[nearest].label);
    });
    bar.style.visibility = value ? "visible" : "hidden"; // pictures alone have no scale
    colours.style.backgroundImage = "linear-gradient(to right, " + data.bars[map.name] + ")";
    words.forEach(function (word, number) { word.textContent = map.ends[number]; });
    if (says.textContent !== stops[nearest].says) says.textContent = stops[nearest].says;
    slider.setAttribute("aria-valuetext", stops[nearest].label);
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
