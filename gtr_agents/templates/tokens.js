// An answer, token by token: what colours it, the scale of the colours, and every value to read.

const number = (value, digits) => (value === null || value === undefined ? "–" : value.toFixed(digits).replace("-", "−"));
const chance = (logProb) => (logProb === null || logProb === undefined ? 0 : Math.exp(logProb));
const degree = (value, limits) => limits.filter((limit) => value >= limit).length;

// Each colouring: its button, what a step needs for it, the class of a token, and the scale.
const COLOURINGS = {
  probability: {
    label: "log-prob",
    needs: () => true,
    style: (step, k) => `o${4 - degree(chance(step.log_probs[k]), [0.05, 0.2, 0.5, 0.9])}`,
    scale: [["name", "sampled with"], ["d0", "p ≥ 0.9"], ["o1", "≥ 0.5"], ["o2", "≥ 0.2"], ["o3", "≥ 0.05"], ["o4", "less"]],
  },
  kl: {
    label: "KL(student ‖ teacher)",
    needs: (step) => Boolean(step.kl),
    style: (step, k) => `v${degree(step.kl[k], [0.001, 0.01, 0.1, 1])}`,
    scale: [["name", "nats, over all tokens there"], ["d0", "< 0.001"], ["v1", "≥ 0.001"], ["v2", "≥ 0.01"], ["v3", "≥ 0.1"], ["v4", "≥ 1"]],
  },
  difference: {
    label: "student − teacher",
    needs: (step) => Boolean(step.teacher_log_probs),
    style: (step, k) => {
      const difference = studentLogProbs(step)[k] - step.teacher_log_probs[k];
      return `${difference > 0 ? "o" : "b"}${degree(Math.abs(difference), [0.02, 0.1, 0.5, 2])}`;
    },
    scale: [["name", "log-prob of this token: student surer by"], ["o4", "2"], ["o3", "0.5"], ["o2", "0.1"], ["o1", "0.02"], ["d0", "alike"],
      ["b1", "0.02"], ["b2", "0.1"], ["b3", "0.5"], ["b4", "2"], ["name", "teacher surer by"]],
  },
};

function studentLogProbs(step) {
  return step.student_log_probs || step.log_probs_t1 || step.log_probs;
}

function tokenBox(step, role, state, redraw) {
  const key = COLOURINGS[state.colouring].needs(step) ? state.colouring : "probability";
  const box = element("div");
  const head = element("h4", "", "Answer ");
  head.append(element("small", "", "token by token; the action is underlined, values on hover"));
  box.append(head, choices("Coloured by", COLOURINGS, key, (name) => COLOURINGS[name].needs(step), (name) => { state.colouring = name; redraw(); }));
  if (!step.kl) box.append(element("p", "muted", role === "start"
    ? "Before the first update there is no teacher to compare with."
    : "Nothing was recorded of what student and teacher say about this answer."));
  const text = element("div", "tokens");
  text.id = "tokens";
  step.tokens.forEach((token, k) => {
    const node = element("span", `${COLOURINGS[key].style(step, k)}${step.thought_mask[k] ? "" : " action-token"}`, token);
    const show = (event) => showReadout(event, readings(step, k));
    node.addEventListener("pointerenter", show);
    node.addEventListener("pointermove", show);
    node.addEventListener("pointerleave", hideReadout);
    text.append(node);
  });
  const scale = element("ul", "scale");
  scale.id = "scale";
  for (const [style, label] of COLOURINGS[key].scale) scale.append(element("li", style, label));
  box.append(text, scale, tokenTable(step, state));
  return box;
}

function choices(label, options, chosen, enabled, choose) {
  const row = element("div", "choices");
  row.setAttribute("role", "group");
  row.setAttribute("aria-label", label);
  row.append(element("span", "", label));
  for (const [key, option] of Object.entries(options)) {
    const button = element("button", "", option.label);
    button.type = "button";
    button.dataset.focus = `${label} ${key}`;
    button.disabled = !enabled(key);
    button.setAttribute("aria-pressed", String(key === chosen));
    button.addEventListener("click", () => choose(key));
    row.append(button);
  }
  return row;
}

function readings(step, k) {
  const own = step.log_probs[k];
  const rows = [element("b", "", JSON.stringify(step.tokens[k])),
    element("div", "", `sampled with p ${chance(own).toFixed(3)} (log-prob ${own === null ? "−∞" : number(own, 3)})`)];
  if (step.teacher_log_probs) {
    const pair = `student ${chance(studentLogProbs(step)[k]).toFixed(3)}, teacher ${chance(step.teacher_log_probs[k]).toFixed(3)}`;
    rows.push(element("div", "", `at temperature 1: ${pair}`));
  }
  if (step.kl) rows.push(element("div", "", `KL(student ‖ teacher) ${number(step.kl[k], 4)} nats`));
  return rows;
}

// The same values without a pointer: for the keyboard, for touch, and for readers of screens.
function tokenTable(step, state) {
  const folded = element("details");
  folded.open = state.tableOpen;
  const sum = (values) => number(values.reduce((a, b) => a + b, 0), 3);
  const total = step.kl ? `, KL ${sum(step.kl)} nats in all` : "";
  const summary = element("summary", "", `Values of all ${step.tokens.length} tokens (log-prob of the answer ${sum(step.log_probs)}${total})`);
  summary.dataset.focus = "values";
  summary.addEventListener("click", () => { state.tableOpen = !folded.open; });
  folded.append(summary);
  const table = element("table");
  const header = element("tr");
  for (const name of ["token", "part", "log-prob", "student", "teacher", "KL"]) header.append(element("th", "", name));
  table.append(header);
  step.tokens.forEach((token, k) => {
    const row = element("tr");
    const values = [JSON.stringify(token), step.thought_mask[k] ? "thought" : "action", number(step.log_probs[k], 3),
      number(studentLogProbs(step)[k], 3), number(step.teacher_log_probs && step.teacher_log_probs[k], 3), number(step.kl && step.kl[k], 4)];
    for (const value of values) row.append(element("td", "", value));
    table.append(row);
  });
  const scroll = element("div", "values");
  scroll.append(element("p", "muted", "log-prob: at the temperature of sampling; student, teacher and KL: at temperature 1."), table);
  folded.append(scroll);
  return folded;
}
