// Travel through the recorded episodes: a map of tasks and moments, the steps of one episode, and what happened in each.

const ROLES = { start: "Start model", student: "Student", teacher: "Merged teacher" };
const FILTERS = { all: { label: "all", keeps: () => true }, won: { label: "won", keeps: (e) => e.success }, lost: { label: "not won", keeps: (e) => !e.success } };
const PLAY_MS = 900;

const signed = (value) => String(value).replace("-", "−");
const momentOf = (episode) => (episode.role === "start" ? ROLES.start : `${ROLES[episode.role] || episode.role}, after update ${episode.update}`);
const taskKey = (episode) => (episode.numbers ? `${episode.numbers} ` : "") + episode.seed;
const taskName = (episode) => episode.task || (episode.numbers ? episode.numbers.join(" ") : `seed ${episode.seed}`);
const hasExpert = (episode) => episode.solvable === false || episode.steps.some((step) => step.expert_action !== null);
// The expert knew a way before this move and none after it: this move lost the game.
const isFatal = (steps, i) => steps[i].expert_action !== null && i + 1 < steps.length && steps[i + 1].expert_action === null;

function startViewer({ shared, episodes }) {
  const at = (id) => document.getElementById(id);
  const state = { episode: firstShown(), step: 0, colouring: "probability", filter: "all", role: "student", tableOpen: false, timer: 0 };
  const buttons = new Map();

  // The last student that won what the start had lost, if there is one: what training changed.
  function firstShown() {
    const lostAtFirst = new Set(episodes.filter((e) => e.role === "start" && !e.success).map(taskKey));
    const won = episodes.filter((e) => e.role === "student" && e.success);
    return won.filter((e) => lostAtFirst.has(taskKey(e))).at(-1) || won.at(-1) || episodes[0];
  }

  const shown = () => episodes.filter(FILTERS[state.filter].keeps);
  const lastStep = () => state.episode.steps.length - (state.episode.final_frame === null ? 1 : 0);

  // --- the map -------------------------------------------------------------------------------------------------------

  function drawMap() {
    const visible = shown();
    const moments = [...new Set(episodes.map((e) => `${e.role} ${e.update}`))];
    const tasks = new Map(visible.map((e) => [taskKey(e), taskName(e)]));
    const roles = [...new Set(episodes.map((e) => e.role))];
    const head = element("thead");
    const names = element("tr");
    const updates = element("tr");
    names.append(element("th"));
    updates.append(element("th", "", "after update"));
    for (const role of roles) {
      const name = element("th", `${role} of-role first`, ROLES[role] || role);
      const own = moments.filter((moment) => moment.startsWith(`${role} `));
      name.colSpan = own.length;
      name.scope = "colgroup";
      names.append(name);
      own.forEach((moment, i) => updates.append(element("th", i ? "" : "first", moment.split(" ")[1])));
    }
    head.append(names, updates);
    const body = element("tbody");
    buttons.clear();
    for (const [task, name] of tasks) body.append(mapRow(task, name, moments, visible));
    at("map").replaceChildren(head, body);
  }

  function mapRow(task, name, moments, visible) {
    const row = element("tr");
    const title = element("th", "", name);
    title.scope = "row";
    title.title = name;
    row.append(title);
    moments.forEach((moment, i) => {
      const cell = element("td", i && moments[i - 1].split(" ")[0] === moment.split(" ")[0] ? "" : "first");
      for (const episode of visible.filter((e) => taskKey(e) === task && `${e.role} ${e.update}` === moment)) cell.append(mapButton(episode));
      row.append(cell);
    });
    return row;
  }

  function mapButton(episode) {
    const button = element("button", episode.success ? "won" : "lost", episode.success ? "✓" : "✗");
    button.type = "button";
    button.dataset.id = episode.id;
    button.title = `${momentOf(episode)}: ${taskName(episode)}, ${episode.success ? "won" : "not won"}, return ${episode.return} (${episode.id})`;
    button.setAttribute("aria-label", button.title);
    button.addEventListener("click", () => { stop(); choose(episode, 0); });
    buttons.set(episode, button);
    return button;
  }

  function drawFilters() {
    at("filters").replaceWith(Object.assign(choices("Show", FILTERS, state.filter, () => true, (key) => {
      state.filter = key;
      const focus = holdFocus();
      drawFilters();
      drawMap();
      drawStep();
      focus();
    }), { id: "filters" }));
  }

  // --- travelling ----------------------------------------------------------------------------------------------------

  function choose(episode, step) {
    if (!episode) return;
    state.episode = episode;
    if (episode.role !== "start") state.role = episode.role;
    go(step);
  }

  // The same task at other moments of the same player; its past begins with the start model.
  function moment(by) {
    const player = state.episode.role === "start" ? state.role : state.episode.role;
    const line = shown().filter((e) => taskKey(e) === taskKey(state.episode) && (e.role === "start" || e.role === player));
    return line[line.indexOf(state.episode) + by];
  }

  // Another task at the same moment.
  function task(by) {
    const { role, update } = state.episode;
    const column = [...buttons.keys()].filter((e) => e.role === role && e.update === update);
    return column[column.indexOf(state.episode) + by];
  }

  function go(step) {
    state.step = Math.max(0, Math.min(step, lastStep()));
    draw();
  }

  function stop() {
    clearInterval(state.timer);
    state.timer = 0;
    at("play").textContent = "Play";
    at("play").setAttribute("aria-pressed", "false");
  }

  function togglePlay() {
    if (state.timer) return stop();
    if (state.step >= lastStep()) go(0);
    at("play").textContent = "Pause";
    at("play").setAttribute("aria-pressed", "true");
    state.timer = setInterval(() => (state.step >= lastStep() ? stop() : go(state.step + 1)), PLAY_MS);
  }

  function nextColouring() {
    const keys = Object.keys(COLOURINGS);
    state.colouring = keys[(keys.indexOf(state.colouring) + 1) % keys.length];
    draw();
  }

  // --- one moment of one episode -------------------------------------------------------------------------------------

  function draw() {
    const focus = holdFocus();
    drawStep();
    focus();
  }

  // What is drawn again loses the keyboard's focus: give it to the new button of the same kind.
  function holdFocus() {
    const active = document.activeElement;
    for (const id of ["map", "timeline"]) {
      if (at(id).contains(active)) return () => at(id).querySelector("[aria-pressed=true]")?.focus({ preventScroll: true });
    }
    const name = active?.dataset?.focus;
    return () => name && document.querySelector(`[data-focus="${name}"]`)?.focus({ preventScroll: true });
  }

  function drawStep() {
    const { episode, step } = state;
    const current = episode.steps[step];
    const frame = shared[current ? current.frame : episode.final_frame];
    drawPlace();
    at("frame").hidden = !frame;
    at("no-frame").hidden = Boolean(frame);
    if (frame) at("frame").src = frame;
    const position = current ? `step ${step + 1} of ${episode.steps.length}` : "the end";
    at("position").textContent = position;
    at("slider").max = String(lastStep());
    at("slider").value = String(step);
    at("slider").setAttribute("aria-valuetext", position);
    at("previous").disabled = step === 0;
    at("next").disabled = step === lastStep();
    drawTimeline(episode);
    hideReadout();
    at("details").replaceChildren(...(current ? describe(episode, step) : []));
  }

  function drawPlace() {
    const { episode } = state;
    for (const [other, button] of buttons) {
      const chosen = other === episode;
      button.setAttribute("aria-pressed", String(chosen));
      button.tabIndex = chosen ? 0 : -1;  // one stop of the Tab key; Shift and the arrows go further
      if (chosen) for (const row of at("map").tBodies[0].rows) row.classList.toggle("current", row.contains(button));
    }
    at("earlier").disabled = !moment(-1);
    at("later").disabled = !moment(1);
    at("who").replaceChildren(element("span", `${episode.role} of-role`, momentOf(episode)), ` · ${taskName(episode)}`);
    const impossible = episode.solvable === false ? " (no solution exists)" : "";
    at("outcome").replaceChildren(element("b", episode.success ? "good" : "bad", episode.success ? "won" : `not won${impossible}`),
      ` with return ${signed(episode.return)} in ${episode.steps.length} steps · seed ${episode.seed}`);
  }

  function drawTimeline(episode) {
    const chips = episode.steps.map((step, i) => {
      const chip = element("button", "", step.action ?? "?");
      chip.title = `step ${i + 1}: ${step.action ?? "unreadable"}${step.legal ? "" : ", refused"}${isFatal(episode.steps, i) ? ", loses the game" : ""}`;
      chip.classList.toggle("refused", !step.legal);
      chip.classList.toggle("fatal", isFatal(episode.steps, i));
      return chip;
    });
    if (episode.final_frame !== null) chips.push(element("button", "", "end"));
    chips.forEach((chip, i) => {
      chip.type = "button";
      chip.setAttribute("aria-pressed", String(i === state.step));
      chip.addEventListener("click", () => { stop(); go(i); });
    });
    at("timeline").replaceChildren(...chips);
  }

  function describe(episode, i) {
    const step = episode.steps[i];
    const parts = [verdict(episode, i), titled("Thought", element("div", "said thought", step.thought || "(none)"))];
    if (step.error) parts.push(titled("The answer could not be read", element("div", "said bad", step.error)));
    if (step.tokens && step.tokens.length) parts.push(tokenBox(step, episode.role, state, draw));
    parts.push(prompt(step));
    if (step.legal_actions !== null) parts.push(legalActions(step));
    return parts;
  }

  function titled(title, ...content) {
    const node = element("div");
    node.append(element("h4", "", title), ...content);
    return node;
  }

  function verdict(episode, i) {
    const step = episode.steps[i];
    const list = element("dl", "verdict");
    const cell = (label, text, style) => {
      const node = element("div");
      node.append(element("dt", "", label), element("dd", style || "", text));
      list.append(node);
    };
    cell("Action", step.action ?? "unreadable", step.legal ? "" : "bad");
    if (hasExpert(episode)) {
      if (step.expert_action === null) cell("Solver", episode.solvable === false ? "no solution" : "no way left", "warn");
      else if (step.expert_action === step.action) cell("Solver", "the same", "good");
      else cell("Solver would", step.expert_action, "");
    }
    if (step.finding) cell("Thought audit", step.finding, step.finding === "correct" ? "good" : step.finding === "hopeless" ? "warn" : "bad");
    cell("Environment", step.legal ? (isFatal(episode.steps, i) ? "accepts; now lost" : "accepts") : "refuses",
      step.legal ? (isFatal(episode.steps, i) ? "warn" : "") : "bad");
    cell("Reward", (step.reward > 0 ? "+" : "") + signed(step.reward), step.reward > 0 ? "good" : step.reward < 0 ? "bad" : "");
    return list;
  }

  function prompt(step) {
    const box = element("div", "prompt");
    box.id = "prompt";
    const turn = (name, text) => box.append(element("span", "turn", name), element("div", "said", text));
    if (shared[step.system]) turn("System", shared[step.system]);
    turn("User", `⟨picture⟩ ${shared[step.prompt]}`);
    return titled("Prompt", box);
  }

  function legalActions(step) {
    const list = element("ul", "legal");
    list.id = "legal";
    const legal = shared[step.legal_actions];
    const refused = step.action !== null && !legal.includes(step.action) ? [step.action] : [];
    for (const action of [...refused, ...legal]) {
      const item = element("li", "", action);
      const marks = [];
      if (action === step.action) marks.push(refused.length ? "played, not legal" : "played");
      if (action === step.expert_action) marks.push("solver");
      item.classList.toggle("advised", action === step.expert_action);
      item.classList.toggle("played", action === step.action);
      item.classList.toggle("refused", refused.includes(action));
      if (marks.length) item.append(element("small", "", marks.join(", ")));
      list.append(item);
    }
    return titled(`Legal actions (${legal.length})`, list);
  }

  // --- controls ------------------------------------------------------------------------------------------------------

  const keys = {
    ArrowLeft: () => go(state.step - 1),
    ArrowRight: () => go(state.step + 1),
    "Shift ArrowLeft": () => choose(moment(-1), state.step),
    "Shift ArrowRight": () => choose(moment(1), state.step),
    "Shift ArrowUp": () => choose(task(-1), 0),
    "Shift ArrowDown": () => choose(task(1), 0),
  };
  const letters = { p: togglePlay, c: nextColouring };

  function onKey(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const inside = at("viewer").contains(event.target);
    if (!inside && event.target !== document.body) return;  // other parts of the page keep their keys
    const letter = inside && letters[event.key.toLowerCase()];
    const travel = keys[`${event.shiftKey ? "Shift " : ""}${event.key}`];
    if (!letter && !travel) return;
    event.preventDefault();
    if (letter) return letter();
    stop();
    travel();
  }

  at("previous").addEventListener("click", () => { stop(); go(state.step - 1); });
  at("next").addEventListener("click", () => { stop(); go(state.step + 1); });
  at("play").addEventListener("click", togglePlay);
  at("earlier").addEventListener("click", () => { stop(); keys["Shift ArrowLeft"](); });
  at("later").addEventListener("click", () => { stop(); keys["Shift ArrowRight"](); });
  at("slider").addEventListener("input", () => { stop(); go(Number(at("slider").value)); });
  document.addEventListener("keydown", onKey);
  drawFilters();
  drawMap();
  go(0);
}

readCharts();
const recorded = document.getElementById("episodes-data");
if (recorded) startViewer(JSON.parse(recorded.textContent));
