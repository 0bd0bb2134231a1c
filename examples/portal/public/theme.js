// Before the first paint: what was chosen here, or else what the system prefers.
(function () {
  var stored = null;
  try {
    stored = localStorage.getItem("tendril-theme");
  } catch (_) {}
  var dark = matchMedia("(prefers-color-scheme: dark)");
  document.documentElement.dataset.theme = stored || (dark.matches ? "dark" : "light");
  dark.addEventListener("change", function () {
    if (!stored) document.documentElement.dataset.theme = dark.matches ? "dark" : "light";
  });
})();
