// Draws every panel with Vega-Embed, in the colours of the reader's screen. Nothing is fetched.
(function () {
  "use strict";
  var data = JSON.parse(document.getElementById("figure-data").textContent);
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  var refuse = function () { return Promise.reject(new Error("a report loads nothing")); };

  function draw() {
    var look = dark.matches ? data.dark : data.light;
    var jobs = Array.prototype.map.call(document.querySelectorAll("[data-panel]"), function (place) {
      var panel = data.figures[place.dataset.figure][Number(place.dataset.panel)];
      var spec = Object.assign({}, panel, {
        width: "container",
        autosize: { type: "fit-x", contains: "padding" },
        config: look,
      });
      return vegaEmbed(place, spec, {
        mode: "vega-lite",
        renderer: "svg",
        logLevel: 1, // errors only
        loader: { load: refuse, sanitize: refuse },
        tooltip: { theme: dark.matches ? "dark" : "light" },
        actions: { export: true, source: false, compiled: false, editor: false },
        downloadFileName: place.dataset.figure,
      });
    });
    return Promise.all(jobs);
  }

  document.documentElement.classList.add("live");
  draw().catch(function (error) {
    document.documentElement.classList.remove("live");
    console.error(error);
  });
  dark.addEventListener("change", draw);
  window.addEventListener("beforeprint", function () {
    document.querySelectorAll("details").forEach(function (part) { part.open = true; });
  });
})();
