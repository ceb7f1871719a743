// Paper is white and cannot be unfolded: a page is printed in its light colours and with its solutions open.
(() => {
  const root = document.documentElement;
  let theme, opened = [];
  window.addEventListener("beforeprint", () => {
    theme = root.dataset.theme;
    root.dataset.theme = "light";
    opened = [...document.querySelectorAll("details.sd-dropdown:not([open])")];
    for (const fold of opened) fold.open = true;
  });
  window.addEventListener("afterprint", () => {
    root.dataset.theme = theme;
    for (const fold of opened) fold.open = false;
  });
})();
