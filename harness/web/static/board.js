// Live parts. Without this file every page says the same, as of the moment it was loaded.
"use strict";

(() => {
  const live = () => document.querySelector("[data-live]");
  if (!live() || !("EventSource" in window)) return;

  let known = live().dataset.event ?? null;
  let again = null;

  // A part is taken anew from the page itself, so there is one template for both.
  async function refresh() {
    again = null;
    const old = live();
    if (!old) return;
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (!answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.getElementById(old.id);
    if (!fresh) return;
    if (old.hasAttribute("data-event") && !fresh.hasAttribute("data-live")) {
      location.reload(); // judged: the whole page has something to say now
      return;
    }
    const focused = document.activeElement;
    const href = old.contains(focused) ? focused.getAttribute("href") : null;
    old.replaceWith(document.adoptNode(fresh));
    if (href) {
      const same = [...fresh.querySelectorAll("a")].find((a) => a.getAttribute("href") === href);
      if (same) same.focus();
    }
  }

  const stream = new EventSource("/live");
  stream.addEventListener("changed", (event) => {
    if (event.data === known) return;
    known = event.data;
    again ??= setTimeout(() => refresh().catch(() => {}), 300);
  });
  stream.addEventListener("progress", (event) => {
    const { evaluation, line } = JSON.parse(event.data);
    for (const place of document.querySelectorAll(`[data-progress="${Number(evaluation)}"]`)) {
      place.textContent = line || "starting";
    }
  });
  addEventListener("pagehide", () => stream.close());
})();
