// Formulas, tables and figures that are wider than the page can be moved sideways: each says so, or it would look complete.
(() => {
  const WIDE = "div.math, div.math mjx-container, .pst-scrollable-table-container, .light-or-dark, a.image-reference, " +
    ".forest-plot, #explorer .xe-scroll";
  const NOTE = "Wider than the page: move it sideways \u2194";
  const notes = new Map(); // of each box that has been cut off
  function look() {
    for (const box of document.querySelectorAll(WIDE)) {
      const cut = box.clientWidth > 0 && box.scrollWidth > box.clientWidth + 2;
      if (cut && !notes.has(box)) {
        const note = Object.assign(document.createElement("p"), { className: "cut-note", textContent: NOTE });
        notes.set(box, note);
        (box.closest("div.math") || box).before(note);
      }
      if (notes.has(box)) notes.get(box).hidden = !cut;
      if (cut && !box.matches("a")) box.tabIndex = 0; // so that the arrow keys reach it
    }
  }
  const sizes = new ResizeObserver(() => requestAnimationFrame(look)); // formulas are set, and figures come, later
  window.addEventListener("load", () => {
    for (const box of document.querySelectorAll(WIDE)) for (const part of [box, ...box.children]) sizes.observe(part);
    look();
    window.MathJax?.startup?.promise?.then(look);
  });
})();
