"use strict";
// The player: events of one row after the other, with the skeletons of truth and prediction over them.
(() => {
  const { bones, recordings } = JSON.parse(document.getElementById("data").textContent);
  const part = (id) => document.getElementById(id);
  const [screen, picture, place, play, which, told] = ["screen", "picture", "place", "play", "which", "told"].map(part);
  let recording = recordings[0];
  let at = 0;
  let timer = null;

  const lines = (points) =>
    points ? bones.map(([a, b]) => `M${points[2 * a]} ${points[2 * a + 1]}L${points[2 * b]} ${points[2 * b + 1]}`).join("") : "";

  function show(index) {
    at = index;
    const frame = recording.frames[at];
    picture.setAttribute("href", frame.picture);
    part("truth").setAttribute("d", part("show-truth").checked ? lines(frame.truth) : "");
    part("said").setAttribute("d", part("show-said").checked ? lines(frame.said) : "");
    place.value = at;
    const error = frame.error === null ? "" : ` · ${frame.error.toFixed(1)} ${recording.unit || "mm"}`;
    told.textContent = `${frame.t.toFixed(2)} s${error}${frame.said ? "" : " · not found"}`;
    const x = (600 * (at + 0.5)) / recording.frames.length;
    part("cursor").setAttribute("d", `M${x} 0V60`);
  }

  function choose(number) {
    recording = recordings[number];
    const { width, height, frames } = recording;
    screen.setAttribute("viewBox", `-0.5 -0.5 ${width} ${height}`);
    picture.setAttribute("width", width);
    picture.setAttribute("height", height);
    place.max = frames.length - 1;
    const top = Math.max(...frames.map((frame) => frame.error || 0), 1e-9);
    const spot = (frame, i) => `${(600 * (i + 0.5)) / frames.length} ${58 - (54 * (frame.error || 0)) / top}`;
    part("errors").setAttribute("d", "M" + frames.map(spot).join("L"));
    show(0);
  }

  function pause() {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
  }

  play.addEventListener("click", () => {
    if (timer !== null) return pause();
    play.textContent = "Pause";
    timer = setInterval(() => show((at + 1) % recording.frames.length), 1000 / 15);
  });
  place.addEventListener("input", () => show(Number(place.value)));
  which.addEventListener("change", () => choose(Number(which.value)));
  for (const id of ["show-truth", "show-said"]) part(id).addEventListener("change", () => show(at));
  choose(0);
})();
