// Paper is white and cannot be unfolded: a page is printed in its light colours and with its folds open.
(() => {
  const root = document.documentElement;
  let theme, opened = [];
  window.addEventListener("beforeprint", () => {
    theme = root.dataset.theme;
    root.dataset.theme = "light";
    opened = [...document.querySelectorAll("details:is(.sd-dropdown, .in-depth):not([open])")];
    for (const fold of opened) fold.open = true;
  });
  window.addEventListener("afterprint", () => {
    root.dataset.theme = theme;
    for (const fold of opened) fold.open = false;
  });
})();
