// A job while it is under way: the server says when it has changed, and renders the part of the page that has.

const now = document.getElementById("now");
const said = document.getElementById("said");
const EVERY_MS = 5000;
const QUARTERS = 4;
let [running, again, quarter] = [false, false, -1];

scrollLog();
if (now?.dataset.events) watch(now);

function watch(element) {
  const events = new EventSource(element.dataset.events);
  const timer = setInterval(show, EVERY_MS); // the log grows between events
  let before = element.querySelector("[data-state]").dataset.state;
  events.addEventListener("job", async ({ data }) => {
    const job = JSON.parse(data);
    const over = job.state !== "queued" && job.state !== "running";
    if (over) {
      events.close();
      clearInterval(timer);
    }
    await show();
    tell(job, before);
    before = job.state;
  });
}

// Say what matters, and no more: another state, and each quarter of the way.
function tell(job, before) {
  const done = job.progress && job.progress.total > 0 ? Math.floor((QUARTERS * job.progress.done) / job.progress.total) : -1;
  if (job.state !== before) said.textContent = `The job is ${job.state}.${job.error ? ` ${job.error.message} ${job.error.hint}` : ""}`;
  else if (done > quarter) said.textContent = `${job.progress.what}: ${job.progress.done} of ${job.progress.total}.`;
  quarter = Math.max(quarter, done);
}

async function show() {
  if (running) return void (again = true);
  running = true;
  do {
    again = false;
    const old = document.getElementById("log-tail");
    const followed = !old || old.scrollTop + old.clientHeight >= old.scrollHeight - 8;
    const at = old?.scrollTop ?? 0;
    await htmx.ajax("GET", now.dataset.now, { target: "#now", swap: "innerHTML" });
    scrollLog(followed ? undefined : at);
  } while (again);
  running = false;
}

function scrollLog(top) {
  const log = document.getElementById("log-tail");
  if (log) log.scrollTop = top ?? log.scrollHeight;
}
