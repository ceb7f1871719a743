/* Guess first: a picture and its map are shown, the answers are hidden, and the score stands beside that of who does not look. */
"use strict";

/** The box of the explorer `e` in which a reader guesses; `make` and `portrait` are those of explore.js. */
function explorerGuess(e, make, portrait) {
  const { data } = e;
  const QUESTIONS = {
    whom: "Whom does the network name?",
    survives: "Without the outlined region, does it still name the same person?",
    beats: "Does the region beat a disc in the middle, both when it is deleted and when it alone is kept?",
  };
  const LAZY = { whom: "one of the family at random", survives: "always no", beats: "always no" };
  const OTHER = -1; // somebody of another family
  const argmax = (values) => values.indexOf(Math.max(...values));
  const score = { cases: 0, whom: [0, 0], survives: [0, 0], beats: [0, 0] }; // right: the reader, who does not look
  let cases = [], guesses = {}, running = false;

  const box = make("div", { className: "xe-guess-box" });
  const begin = make("button", { id: "xe-guess", type: "button", onclick: () => (running ? leave() : start()) }, "Guess first");
  const says = make("p", { id: "xe-guess-says", role: "status", "aria-live": "polite" });
  const show = make("button", { id: "xe-guess-show", type: "button", disabled: true, onclick: () => reveal() }, "Show the answers");
  const next = make("button", { id: "xe-guess-next", type: "button", onclick: () => pose() }, "Next picture");
  const table = make("table", { className: "xe-table" });
  const asked = make("div", { className: "xe-asked" });
  const element = make("div", { className: "xe-guess" },
    make("div", { className: "xe-buttons" }, begin, e.match.button),
    make("p", { className: "xe-note" }, "Guessing hides the answers until you have guessed: does the map help you to know them? " +
      "Comparing asks another question: do two pictures show one person?"), box);
  const guess = { element, secret: false, heard, score, next: (faces) => { cases = faces; } };

  function start() {
    running = true;
    begin.textContent = "Leave the guessing";
    box.replaceChildren(asked, make("div", { className: "xe-buttons" }, show, next), says, table);
    pose();
  }

  function leave() {
    running = false;
    begin.textContent = "Guess first";
    box.replaceChildren();
    conceal(false);
  }

  function conceal(on) {
    guess.secret = on;
    e.panel.classList.toggle("xe-secret", on);
    if (e.original) e.listMaps();
    e.draw();
    e.tell();
  }

  /** Show a picture that has not been guessed yet, and ask about it. */
  function pose() {
    if (!cases.length) cases = shuffled(data.faces.map((_, n) => n));
    guesses = {};
    e.setAll(e.opening);
    Object.assign(e, { truth: false, showTop: true });
    for (const [name, on] of [["xe-truth", false], ["xe-top", true]]) e.panel.querySelector(`#${name}`).checked = on;
    guess.secret = true; // before the picture, whose name would be said
    const number = cases.pop();
    e.panel.querySelector(`#xe-face-${number}`).checked = true;
    e.choose(number);
    e.say("", 0);
    conceal(true);
    asked.replaceChildren(...Object.keys(QUESTIONS).map(question));
    Object.assign(says, { textContent: "" });
    show.hidden = false;
    next.hidden = true;
    heard();
    tally();
  }

  const family = () => data.names.map((_, n) => n).filter((n) => data.family[n] === data.family[e.face.identity]);

  function question(name) {
    const choices = name === "whom" ? [...family().map((n) => [n, data.names[n]]), [OTHER, "somebody else"]] : [[1, "yes"], [0, "no"]];
    const radios = choices.map(([value, text]) => {
      const id = `xe-guess-${name}-${value < 0 ? "other" : value}`;
      const input = make("input", { type: "radio", name: `xe-guess-${name}`, id, onchange: () => { guesses[name] = value; heard(); } });
      const face = name === "whom" && value >= 0 ? [portrait(data.portraits[value], "")] : [];
      return make("label", { className: "xe-check", for: id }, input, ...face, " ", text);
    });
    return make("fieldset", {}, make("legend", {}, QUESTIONS[name]), make("div", { className: "xe-inks" }, ...radios));
  }

  /** Free the answers once all questions have a guess and the network has answered. */
  function heard() {
    if (running) show.disabled = !(Object.keys(guesses).length === 3 && e.masked && e.judged);
  }

  function reveal() {
    const named = argmax(e.answer.probabilities), members = family(), within = members.includes(named);
    const truth = { whom: within ? named : OTHER, survives: Number(argmax(e.masked.deletion) === named), beats: Number(e.judged.verdict.show) };
    const blind = { whom: within ? 1 / members.length : 0, survives: 1 - truth.survives, beats: 1 - truth.beats };
    score.cases++;
    for (const name of Object.keys(QUESTIONS)) {
      score[name][0] += Number(guesses[name] === truth[name]);
      score[name][1] += blind[name];
    }
    const right = Object.keys(truth).filter((name) => guesses[name] === truth[name]).length;
    const mark = (name) => (guesses[name] === truth[name] ? "✓" : "✗");
    says.textContent = `${right} of 3 right. ${mark("whom")} It names ${data.names[named]}. ` +
      `${mark("survives")} Without the region it names ${truth.survives ? "the same person" : data.names[argmax(e.masked.deletion)]}. ` +
      `${mark("beats")} The region ${truth.beats ? "beats" : "does not beat"} the disc in both.`;
    for (const input of asked.querySelectorAll("input")) input.disabled = true;
    show.hidden = true;
    next.hidden = false;
    tally();
    conceal(false);
  }

  function tally() {
    const cell = (tag, text) => make(tag, tag === "th" ? { scope: "row" } : { className: "xe-named" }, text);
    table.replaceChildren(make("caption", {}, `Score after ${score.cases} picture${score.cases === 1 ? "" : "s"}`),
      make("thead", {}, make("tr", {}, make("td"), ...["you", "without looking"].map((text) => make("th", { scope: "col" }, text)))),
      make("tbody", {}, ...Object.entries({ whom: "who is named", survives: "still named", beats: "beats the disc" }).map(([name, text]) =>
        make("tr", {}, cell("th", text), cell("td", String(score[name][0])),
          cell("td", `${Number(score[name][1].toFixed(1))} (${LAZY[name]})`)))));
  }

  function shuffled(values) {
    for (let i = values.length - 1; i > 0; i--) {
      const j = Math.floor(Math.random() * (i + 1));
      [values[i], values[j]] = [values[j], values[i]];
    }
    return values;
  }

  return guess;
}
