// Keeps the page current: on every hint from the server it fetches itself and morphs into what came.
"use strict";
(() => {
  const status = document.getElementById("live");
  let busy = false;
  let again = false;

  const say = (state, text) => {
    if (!status) return;
    status.dataset.state = state;
    status.textContent = text;
  };

  const localise = () => {
    for (const element of document.querySelectorAll("time[datetime]")) {
      const at = new Date(element.dateTime);
      element.title = at.toLocaleString() + " · " + at.toISOString();
    }
  };

  const refresh = async () => {
    if (busy) {
      again = true;
      return;
    }
    busy = true;
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html" }, credentials: "same-origin" });
      if (answer.redirected && new URL(answer.url).pathname === "/login") {
        location.assign("/login");
        return;
      }
      if (answer.ok) {
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        const fresh = page.querySelector("main");
        const old = document.querySelector("main");
        if (fresh && old) {
          Idiomorph.morph(old, fresh, {
            ignoreActiveValue: true,
            callbacks: { beforeAttributeUpdated: (name, node) => !(name === "open" && node.tagName === "DETAILS") },
          });
          localise();
        }
      }
    } finally {
      busy = false;
      if (again) {
        again = false;
        refresh();
      }
    }
  };

  localise();
  if (!document.body.dataset.live) return;
  const source = new EventSource("/live");
  source.addEventListener("open", () => {
    say("on", "live");
    // What changed since the page was drawn, or while the connection was away, was told to nobody.
    refresh();
  });
  source.addEventListener("error", () => say("off", "reconnecting"));
  source.addEventListener("incident", refresh);
  source.addEventListener("missed", refresh);
  // Much is printed: a page that shows it is fetched again at most once a second.
  let waiting = false;
  source.addEventListener("printed", (event) => {
    if (waiting || !document.querySelector(`[data-run="${CSS.escape(JSON.parse(event.data).run)}"]`)) return;
    waiting = true;
    setTimeout(() => {
      waiting = false;
      refresh();
    }, 1000);
  });
  setInterval(refresh, 30000);
})();
