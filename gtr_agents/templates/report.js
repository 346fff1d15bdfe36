"use strict";

// Everything is put on the page as text, never as markup: a model may have written it.
function element(tag, style, text) {
  const node = document.createElement(tag);
  if (style) node.className = style;
  if (text !== undefined) node.textContent = text;
  return node;
}

function readCharts() {
  const readout = document.getElementById("readout");
  for (const chart of document.querySelectorAll("svg.chart")) {
    const columns = JSON.parse(chart.dataset.hover || "[]");
    if (!columns.length) continue;
    const cross = document.createElementNS("http://www.w3.org/2000/svg", "line");
    cross.setAttribute("class", "cross");
    cross.setAttribute("y1", "8");
    cross.setAttribute("y2", String(chart.viewBox.baseVal.height - 26));
    const hide = () => { readout.hidden = true; cross.remove(); };
    chart.addEventListener("pointerleave", hide);
    chart.addEventListener("pointermove", (event) => {
      const box = chart.getBoundingClientRect();
      const x = (event.clientX - box.left) / box.width * chart.viewBox.baseVal.width;
      const nearest = columns.reduce((a, b) => (Math.abs(b.x - x) < Math.abs(a.x - x) ? b : a));
      cross.setAttribute("x1", nearest.x);
      cross.setAttribute("x2", nearest.x);
      chart.append(cross);
      readout.replaceChildren(element("div", "muted", nearest.head));
      for (const [label, role, value] of nearest.rows) {
        const row = element("div", role);
        row.append(element("i"), `${label} `, element("b", "", value));
        readout.append(row);
      }
      readout.hidden = false;
      const left = Math.min(event.clientX + 14, window.innerWidth - readout.offsetWidth - 8);
      readout.style.left = `${Math.max(8, left)}px`;
      readout.style.top = `${Math.max(8, event.clientY - readout.offsetHeight - 14)}px`;
    });
  }
}

function startViewer(episodes) {
  const at = (id) => document.getElementById(id);
  const roles = { start: "Start model", student: "Student", teacher: "Merged teacher" };
  const latest = episodes.filter((episode) => episode.role === "student" && episode.success).at(-1);
  const first = latest ? episodes.find((e) => e.role === "student" && e.success && e.update === latest.update) : episodes[0];
  const state = { episode: first, step: 0, colouring: "probability", timer: 0 };
  const buttons = new Map();

  const groupOf = (episode) =>
    episode.role === "start" ? roles.start : `${roles[episode.role] || episode.role}, update ${episode.update}`;
  const nameOf = (episode) => (episode.numbers ? episode.numbers.join(" ") : `seed ${episode.seed}`);
  const lastStep = () => state.episode.steps.length - (state.episode.final_frame ? 0 : 1);
  const hasExpert = (episode) => !episode.solvable || episode.steps.some((step) => step.expert_action !== null);
  // The expert knew a way before this move and none after it: this move lost the game.
  const isFatal = (steps, i) =>
    steps[i].expert_action !== null && i + 1 < steps.length && steps[i + 1].expert_action === null;

  function listEpisodes() {
    const groups = new Map();
    for (const episode of episodes) {
      const name = groupOf(episode);
      if (!groups.has(name)) {
        const group = element("div", `group ${episode.role}`);
        group.append(element("span", "", name));
        groups.set(name, group);
        at("groups").append(group);
      }
      const button = element("button", episode.success ? "won" : "lost", nameOf(episode));
      button.type = "button";
      button.title = `${episode.id}, seed ${episode.seed}, return ${episode.return}`;
      button.addEventListener("click", () => { stop(); state.episode = episode; go(0); });
      buttons.set(episode, button);
      groups.get(name).append(button);
    }
  }

  function go(step) {
    state.step = Math.max(0, Math.min(step, lastStep()));
    draw();
  }

  function stop() {
    clearInterval(state.timer);
    state.timer = 0;
    at("play").textContent = "Play";
  }

  function togglePlay() {
    if (state.timer) return stop();
    if (state.step >= lastStep()) go(0);
    at("play").textContent = "Pause";
    state.timer = setInterval(() => (state.step >= lastStep() ? stop() : go(state.step + 1)), 900);
  }

  function draw() {
    const { episode, step } = state;
    const current = episode.steps[step];
    const frame = current ? current.frame : episode.final_frame;
    for (const [other, button] of buttons) button.setAttribute("aria-pressed", String(other === episode));
    at("frame").hidden = !frame;
    at("no-frame").hidden = Boolean(frame);
    if (frame) at("frame").src = frame;
    at("position").textContent = current ? `step ${step + 1} of ${episode.steps.length}` : "the end";
    at("previous").disabled = step === 0;
    at("next").disabled = step === lastStep();
    const outcome = episode.success ? "won" : episode.solvable ? "not won" : "not won (no solution exists)";
    at("who").textContent = `${groupOf(episode)} · ${nameOf(episode)} · ${outcome}, return ${episode.return}`;
    drawTimeline(episode);
    at("details").replaceChildren(...(current ? describe(episode, step) : [ending(episode)]));
  }

  function drawTimeline(episode) {
    const chips = episode.steps.map((step, i) => {
      const chip = element("button", "", step.action ?? "?");
      if (!step.legal) chip.classList.add("refused");
      if (isFatal(episode.steps, i)) chip.classList.add("fatal");
      return chip;
    });
    if (episode.final_frame) chips.push(element("button", "", "end"));
    chips.forEach((chip, i) => {
      chip.type = "button";
      chip.setAttribute("aria-pressed", String(i === state.step));
      chip.addEventListener("click", () => { stop(); go(i); });
    });
    at("timeline").replaceChildren(...chips);
  }

  function ending(episode) {
    return element("div", episode.success ? "good" : "bad", episode.success ? "The episode is won." : "The episode is not won.");
  }

  function block(label, text, style) {
    const node = element("div");
    node.append(element("span", "name-of", label), element("div", `said ${style || ""}`, text));
    return node;
  }

  function describe(episode, i) {
    const step = episode.steps[i];
    const parts = [block("Thought", step.thought || "(none)", "thought"), move(episode, i)];
    if (step.error) parts.push(block("The answer could not be read", step.error, "bad"));
    if (step.tokens && step.tokens.length) parts.push(tokens(step));
    const prompt = element("details");
    prompt.append(element("summary", "", "Prompt"), element("div", "said", step.prompt));
    parts.push(prompt);
    return parts;
  }

  function move(episode, i) {
    const step = episode.steps[i];
    const row = element("div", "move");
    const cell = (label, text, style) => {
      const node = element("div");
      node.append(element("span", "name-of", label), element("b", style || "", text));
      row.append(node);
    };
    cell("Action", step.action ?? "none", step.legal ? "" : "bad");
    if (!step.legal) cell("Environment", "refused", "bad");
    cell("Reward", (step.reward > 0 ? "+" : "") + step.reward, step.reward > 0 ? "good" : step.reward < 0 ? "bad" : "");
    if (hasExpert(episode)) {
      if (step.expert_action === null) cell("Solver", episode.solvable ? "no way left" : "no solution", "warn");
      else if (step.expert_action === step.action) cell("Solver", "the same", "good");
      else cell("Solver", `would play ${step.expert_action}`, "");
    }
    if (step.finding) cell("Thought audit", step.finding, step.finding === "correct" ? "good" : step.finding === "hopeless" ? "warn" : "bad");
    if (isFatal(episode.steps, i)) cell("Effect", "loses the game", "warn");
    return row;
  }

  function tokens(step) {
    const box = element("div");
    const teacher = step.teacher_log_probs;
    const student = step.log_probs_t1 || step.log_probs;
    const byTeacher = teacher && state.colouring === "teacher";
    const head = element("div", "colouring");
    head.append(element("span", "name-of", "Answer, token by token (action underlined). Coloured by"));
    for (const [key, label] of [["probability", "improbability"], ...(teacher ? [["teacher", "student − teacher"]] : [])]) {
      const button = element("button", "", label);
      button.type = "button";
      button.setAttribute("aria-pressed", String((key === "teacher") === Boolean(byTeacher)));
      button.addEventListener("click", () => { state.colouring = key; draw(); });
      head.append(button);
    }
    if (byTeacher) head.append(element("span", "name-of", "orange: the student is surer, blue: the teacher is"));
    const text = element("div", "tokens");
    step.tokens.forEach((token, k) => {
      const node = element("span", step.thought_mask[k] ? "" : "action-token", token);
      const logProb = step.log_probs[k];
      const difference = byTeacher ? student[k] - teacher[k] : 0;
      const strength = Math.min(0.85, byTeacher ? Math.abs(difference) / 1.5 : logProb === null ? 0.85 : -logProb / 3);
      node.style.background = `rgb(var(${difference < 0 ? "--other" : "--doubt"}) / ${strength.toFixed(2)})`;
      node.title = `p = ${logProb === null ? 0 : Math.exp(logProb).toFixed(3)}`;
      if (teacher) node.title += `; at temperature 1: student ${Math.exp(student[k]).toFixed(3)}, teacher ${Math.exp(teacher[k]).toFixed(3)}`;
      text.append(node);
    });
    box.append(head, text);
    return box;
  }

  at("previous").addEventListener("click", () => { stop(); go(state.step - 1); });
  at("next").addEventListener("click", () => { stop(); go(state.step + 1); });
  at("play").addEventListener("click", togglePlay);
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || !["ArrowLeft", "ArrowRight"].includes(event.key)) return;
    event.preventDefault();
    stop();
    go(state.step + (event.key === "ArrowRight" ? 1 : -1));
  });
  listEpisodes();
  go(0);
}

readCharts();
const recorded = document.getElementById("episodes-data");
if (recorded) startViewer(JSON.parse(recorded.textContent));
