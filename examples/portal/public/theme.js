// Before the first paint: what was chosen here, or else what the system prefers.
(function () {
  var kept = null;
  try {
    kept = localStorage.getItem("tendril-theme");
  } catch (_) {}
  var dark = matchMedia("(prefers-color-scheme: dark)");
  document.documentElement.dataset.theme = kept || (dark.matches ? "dark" : "light");
  dark.addEventListener("change", function () {
    if (!kept) document.documentElement.dataset.theme = dark.matches ? "dark" : "light";
  });
})();
