// The page of the chat: it draws the state of a room of `presence.js`. Every text from outside goes through `textContent` or
// `dataset`, so a name or a message is never markup. It is one file, because all its parts draw the same room, and a reader of the
// example finds them in one place.

import { joinRoom } from '/presence.js';
import { $, avatar, element, first, flag, list, time } from '/tools.js';

const MARKS = { available: 'Available', away: 'Away', busy: 'Busy' };
const TYPING_PAUSE = 3000; // after this long without a key, the user is not typing any more
const DRAW_INTERVAL = 100;
const UPDATE_INTERVAL = 400; // at most one `update` in this time
const SAME_BREATH = 120000; // messages, joins and leaves within this time share one heading or line
const LOG_LENGTH = 500;
const ROSTER_LENGTH = 500;

let room = null;
let here = { room: '', user: null };
let standing = { mark: 'available', note: '', since: 0 }; // the user's status, which each of the user's tabs has
let typing = false;
const config = fetch('/config.json').then((answer) => answer.json()).catch(() => ({}));

// The entrance. The address of the page decides which room is shown.

function fromAddress() {
  const query = new URLSearchParams(location.search);
  return { room: query.get('room') ?? '', user: query.get('user') || null, anonymous: query.has('anonymous') };
}

function toAddress({ room: name, user }) {
  const room = new URLSearchParams({ room: name });
  return user === null ? `/?${room}&anonymous` : `/?${room}&${new URLSearchParams({ user })}`;
}

function follow() {
  const asked = fromAddress();
  if (asked.room && (asked.user !== null || asked.anonymous)) enter(asked);
  else showEntrance(asked);
}

function showEntrance({ room: name, user }) {
  room?.close();
  room = null;
  document.title = 'Chat';
  $('chat').hidden = true;
  $('entrance').hidden = false;
  $('room').value = name || 'lobby';
  $('name').value = user ?? remembered();
  $('refusal').textContent = '';
  $('name').focus();
}

async function enter({ room: name, user }) {
  const asked = location.href;
  const { max_age_ms: maxAge, grace_ms: grace } = await config;
  if (location.href !== asked) return undefined; // the address has changed in the meantime
  room?.close();
  try {
    room = joinRoom({ room: name, user: user ?? undefined }, { maxAge, grace });
  } catch (error) {
    showEntrance({ room: name, user });
    $('name').value = user ?? '';
    $('refusal').textContent = `Not possible: ${error.message}.`;
    return undefined;
  }
  here = { room: name, user };
  remember(user);
  startAfresh();
  $('entrance').hidden = true;
  $('chat').hidden = false;
  $('title').textContent = name;
  $('self').hidden = user === null;
  drawTitle();
  listen(room);
  drawStatus(room.status);
  drawMembers();
  $('text').focus();
  return undefined;
}

/** Removes everything that belongs to the earlier room. */
function startAfresh() {
  standing = { mark: 'available', note: '', since: 0 };
  $('mark').value = standing.mark;
  $('note').value = $('text').value = '';
  clearTimeout(update);
  clearTimeout(pause);
  update = null;
  typing = stale = false;
  rows.clear();
  $('members').replaceChildren();
  $('log').replaceChildren();
  fresh.replaceChildren();
  wasLive = false;
  lostBy = '';
  ownWords.length = unread = 0;
  following = true;
  hint('');
}

function remember(name) { try { localStorage.setItem('name', name ?? ''); } catch { /* storage is off */ } }
function remembered() { try { return localStorage.getItem('name') ?? ''; } catch { return ''; } }

$('enter').addEventListener('submit', (event) => {
  event.preventDefault();
  const asked = { room: $('room').value.trim(), user: $('name').value.trim() || null };
  history.pushState(null, '', toAddress(asked));
  enter(asked);
});

$('home').addEventListener('click', (event) => {
  event.preventDefault();
  history.pushState(null, '', `/?${new URLSearchParams({ room: here.room })}`);
  showEntrance(here);
});

window.addEventListener('popstate', follow);

// The room.

function listen(joined) {
  const on = (event, draw) => joined.on(event, (...details) => { if (room === joined) draw(...details); });
  on('status', drawStatus);
  on('sync', () => { adopt(); drawSoon(); });
  on('join', ({ user }) => logPassage('join', user));
  on('leave', ({ user }) => logPassage('leave', user));
  on('message', logMessage);
  on('error', ({ code, message }) => hint(REFUSED[code] ?? message));
}

$('leave').addEventListener('click', () => {
  if (isAway(room.status)) return room.join();
  stopTyping();
  return room.leave();
});
$('retry').addEventListener('click', () => room.join());

const isAway = ({ state }) => state === 'left' || state === 'closed';

// The connection's state. The countdown is outside the live region, because a screen reader would read every second.

const STATES = {
  connecting: 'Connecting', live: 'Live', reconnecting: 'Reconnecting', left: 'Left', closed: 'Disconnected',
};
let countdown = null;
let wasLive = false; // whether this room was live since it was entered

function drawStatus(status) {
  const { state, why } = status;
  const isRefused = state === 'reconnecting' && why === 'refused';
  if (state === 'live') wasLive = true;
  $('status').dataset.state = state;
  flag($('status'), 'refused', isRefused);
  $('status').textContent = isRefused ? 'Refused' : STATES[state];
  $('chat').dataset.state = state;
  $('leave').textContent = isAway(status) ? 'Rejoin' : 'Leave';
  $('leave').classList.toggle('primary', isAway(status));
  $('composer').querySelector('button').disabled = state !== 'live';
  $('text').disabled = isAway(status);
  $('text').placeholder = isAway(status) ? 'Rejoin to speak' : 'Say something';
  $('mark').disabled = $('note').disabled = isAway(status);
  drawNotice(status);
  hint('');
  ownWords.length = 0; // messages that were being sent may be lost
}

function drawNotice({ state, delay, why, code, reason }) {
  clearInterval(countdown);
  const notice = (text, retry) => {
    $('notice').hidden = !text;
    $('reason').textContent = text;
    $('retry').hidden = !retry;
  };
  if (state === 'left') {
    const how = reason ? 'You were removed from' : 'You left';
    return notice(`${how} the room. While you are away, this page does not know who is here.`);
  }
  if (state === 'closed') return notice(closedBecause(code, reason));
  if (state === 'live') lostBy = '';
  if (state !== 'reconnecting') return notice('');
  if (why === 'lost') lostBy ||= wordsFor(code); // the codes of later attempts say less
  const lost = why === 'lost' ? lostBy : LOST[why];
  const until = performance.now() + delay;
  const draw = () => {
    const seconds = Math.ceil((until - performance.now()) / 1000);
    const waiting = delay > 0 && seconds > 0;
    notice(`${lost} ${waiting ? `Trying again in ${seconds} s.` : 'Trying again…'}`, waiting);
  };
  draw();
  countdown = setInterval(draw, 250);
  return undefined;
}

let lostBy = ''; // why the connection was lost that the page tries to restore

function wordsFor(code) {
  if (!wasLive) return 'There is no connection to the server yet.';
  if (code >= 4100 && code < 4200) return 'The server asks to come back later.';
  return LOST[code] ?? 'The connection is lost.';
}

/** By the cause, or by the close code of a lost connection. */
const LOST = {
  1012: 'The server is restarting.',
  1013: 'This page could not keep up.',
  4408: 'This page was silent for too long.',
  gap: 'A change was missed.',
  malformed: 'The server sent something that this page cannot read.',
  refused: 'The server refuses this page, or it is not running.',
  restored: 'Welcome back.',
  silent: 'The server does not answer any more.',
  timeout: 'The server does not answer.',
};

function closedBecause(code, reason) {
  const because = reason ? `: ${reason.replace(/[.!]$/, '')}.` : '.';
  if (code === 1008) return reason ? `The server closed the connection${because}` : 'The server closed the connection, since a limit was exceeded.';
  if (code >= 4000 && code < 4100) return `The server does not let you in${because}`;
  return `Disconnected${because}`;
}

// The members. A member is a value: if the object is the same, nothing has changed.

const rows = new Map();
const collator = new Intl.Collator();

let drawing = null;
let overdue = false;

/** Draws at once, but at most once in `DRAW_INTERVAL`. A hidden page always draws at once, because its timers are slow. */
function drawSoon() {
  if (document.hidden) return drawMembers();
  if (drawing !== null) return void (overdue = true);
  drawMembers();
  overdue = false;
  drawing = setTimeout(() => {
    drawing = null;
    if (overdue && room) drawSoon();
  }, DRAW_INTERVAL);
  return undefined;
}

function drawMembers() {
  const { members, anonymous } = room;
  const me = (member) => member.user === here.user;
  const sorted = [...members.values()].sort((a, b) => me(b) - me(a) || collator.compare(a.user, b.user));
  const shown = sorted.slice(0, ROSTER_LENGTH);
  const wanted = new Set(shown.map(({ user }) => user));
  for (const [user, { row }] of rows) {
    if (wanted.has(user)) continue;
    row.remove();
    rows.delete(user);
  }
  shown.forEach((member, place) => {
    const row = memberRow(member, me(member));
    if ($('members').children[place] !== row) $('members').insertBefore(row, $('members').children[place] ?? null);
  });
  drawRest(sorted.length - shown.length);
  $('people').textContent = $('people').dataset.count = members.size;
  drawAnonymous(anonymous);
  drawTyping(sorted);
}

function memberRow(member, mine) {
  const known = rows.get(member.user);
  if (known?.member === member) return known.row;
  const row = known?.row ?? element('li', {}, avatar(member.user), element('div', { className: 'who' }));
  const { mark, note } = latest(member);
  const tabs = member.presences.size;
  row.dataset.user = member.user;
  row.dataset.tabs = tabs;
  row.dataset.mark = mark;
  row.dataset.note = note;
  flag(row, 'typing', isTyping(member));
  flag(row, 'me', mine);
  row.title = member.user;
  const name = element('span', { className: 'name' }, element('bdi', { textContent: member.user }));
  const tags = element('span', { className: 'tags' });
  if (mine) tags.append(element('span', { className: 'tag', textContent: 'you' }));
  if (tabs > 1) tags.append(element('span', { className: 'tag tabs', textContent: `${tabs} tabs` }));
  const line = element('span', { className: 'line' }, element('bdi', { textContent: note || MARKS[mark] }));
  if (isTyping(member)) line.replaceChildren(element('span', { className: 'dots', textContent: 'typing' }));
  row.querySelector('.who').replaceChildren(name, tags, line);
  rows.set(member.user, { row, member });
  return row;
}

function drawRest(rest) {
  $('members').querySelector('.rest')?.remove();
  if (rest === 0) return;
  $('members').append(element('li', { className: 'rest', textContent: `and ${rest.toLocaleString()} more` }));
}

function drawAnonymous(count) {
  const included = here.user === null && room.me !== null;
  const visitors = count === 1 ? 'anonymous visitor' : 'anonymous visitors';
  $('anonymous').dataset.count = count;
  $('anonymous').hidden = count === 0;
  $('anonymous').textContent = included && count === 1 ? 'You are here anonymously'
    : `${count.toLocaleString()} ${visitors}${included ? ', you among them' : ''}`;
}

function drawTyping(members) {
  const names = members.filter((member) => member.user !== here.user && isTyping(member)).map(({ user }) => user);
  if (names.length === 0) $('typing').replaceChildren();
  else $('typing').replaceChildren(...list(names), ` ${names.length > 1 ? 'are' : 'is'} typing`);
}

/** The status of a user is that of the tab that changed it last. */
function latest({ presences }) {
  let found = { mark: 'available', note: '', since: 0 };
  for (const { mark, note, since } of presences.values()) {
    if (!(Number.isFinite(since) && since > found.since)) continue;
    found = { mark: Object.hasOwn(MARKS, mark) ? mark : 'available', note: String(note ?? '').slice(0, 80), since };
  }
  return found;
}

const isTyping = ({ presences }) => [...presences.values()].some((meta) => meta.typing === true);

// The user's own status. When another tab of the user changes it, this one adopts it.

let update = null;
let stale = false;

/** Sends the status to the room, at most once in `UPDATE_INTERVAL`. The last one is always sent. */
function sendStatus() {
  stale = true;
  if (update !== null) return;
  const joined = room;
  const next = () => {
    if (!stale || room !== joined) return void (update = null);
    stale = false;
    joined.update({ ...standing, typing });
    update = setTimeout(next, UPDATE_INTERVAL);
  };
  next();
}

function adopt() {
  const member = here.user === null ? undefined : room.get(here.user);
  const status = member ? latest(member) : standing;
  if (status.since <= standing.since) return;
  standing = status;
  $('mark').value = status.mark;
  if (document.activeElement !== $('note')) $('note').value = status.note;
  sendStatus();
}

function changeStatus() {
  const since = Math.max(Date.now(), standing.since + 1); // the clock of another device may be ahead
  standing = { mark: $('mark').value, note: $('note').value.trim(), since };
  sendStatus();
}

$('mark').addEventListener('change', changeStatus);
$('note').addEventListener('change', changeStatus);
$('self').addEventListener('submit', (event) => {
  event.preventDefault();
  $('note').blur(); // fires `change` if it changed
});

let pause = null;

function startTyping() {
  clearTimeout(pause);
  pause = setTimeout(stopTyping, TYPING_PAUSE);
  if (typing || here.user === null) return;
  typing = true;
  sendStatus();
}

function stopTyping() {
  clearTimeout(pause);
  if (!typing) return;
  typing = false;
  sendStatus();
}

$('text').addEventListener('input', () => {
  hint('');
  if ($('text').value.trim()) startTyping();
  else stopTyping();
});

// The log.

const ownWords = []; // sent anonymously and not received yet: nothing else distinguishes them from those of other visitors
let unread = 0;

$('composer').addEventListener('submit', (event) => {
  event.preventDefault();
  const text = $('text').value.trim();
  if (!text) return;
  try {
    room.send(text);
  } catch (error) {
    return hint(REFUSED[error.code] ?? error.message);
  }
  if (here.user === null) ownWords.push(text);
  $('text').value = '';
  hint('');
  stopTyping();
  scrollToEnd();
});

const REFUSED = {
  reserved_text: 'The server would take this text for a command. Put a word before it.',
  unavailable: 'The server cannot save that just now; it will be tried again.',
  not_live: 'Not sent: there is no connection just now.',
};

function logMessage({ from, text }) {
  const mine = from === null ? ownWords[0] === text && here.user === null : from === here.user;
  if (mine && from === null) ownWords.shift();
  const last = lastEntry();
  const goesOn = last?.dataset.kind === 'message' && last.dataset.from === (from ?? '')
    && mine === ('mine' in last.dataset) && Date.now() - Number(last.dataset.at) < SAME_BREATH;
  const who = mine ? 'You' : from ?? 'Someone';
  const entry = element('li', { className: goesOn ? 'goes-on' : '' },
    avatar(from),
    element('div', { className: 'said' },
      element('p', { className: 'head' }, element('bdi', { className: 'name', textContent: who }), time()),
      element('p', { className: 'text', dir: 'auto', textContent: text })));
  Object.assign(entry.dataset, { kind: 'message', from: from ?? '' });
  flag(entry, 'mine', mine);
  append(entry);
  if (document.hidden) unread += 1;
  drawTitle();
}

/** All joins between two messages share one line, and all leaves another. */
function logPassage(kind, user) {
  const entry = openLine(kind) ?? element('li', {}, element('span', { className: 'text' }), time());
  const users = passed.get(entry) ?? new Set();
  passed.set(entry, users.add(user));
  entry.dataset.kind = kind;
  if (users.size <= NAMES_KEPT) entry.dataset.users = JSON.stringify([...users]);
  const words = kind === 'join' ? ' joined' : ' left';
  entry.querySelector('.text').replaceChildren(...list(first(users, 4), users.size), words);
  if (!entry.parentNode) append(entry);
}

const passed = new WeakMap(); // from a line of the log to the users that it names
const NAMES_KEPT = 100; // in `data-users`

function openLine(kind) {
  for (let line = lastEntry(); line; line = line.previousElementSibling ?? (line.parentNode === fresh ? $('log').lastElementChild : null)) {
    if (line.dataset.kind === 'message' || Date.now() - Number(line.dataset.at) > SAME_BREATH) return null;
    if (line.dataset.kind === kind) return line;
  }
  return null;
}

let following = true; // the end of the log is visible, and the log scrolls with new entries
const fresh = document.createDocumentFragment(); // entries that are not in the page yet
let logDrawing = null;
let logDrawn = 0;

function lastEntry() { return fresh.lastElementChild ?? $('log').lastElementChild; }

/**
 * When a script reads the height of the log, the browser computes its whole layout. So entries are gathered and added to the page
 * together: with the next frame, and at most once in `DRAW_INTERVAL`. A hidden page has no frames and no layout.
 */
function append(entry) {
  entry.dataset.at = Date.now();
  fresh.append(entry);
  if (document.hidden) return drawLog();
  logDrawing ??= setTimeout(() => requestAnimationFrame(drawLog), Math.max(0, logDrawn + DRAW_INTERVAL - performance.now()));
  return undefined;
}

function drawLog() {
  clearTimeout(logDrawing);
  logDrawing = null;
  logDrawn = performance.now();
  if (!fresh.hasChildNodes()) return;
  while (fresh.childElementCount > LOG_LENGTH) fresh.firstElementChild.remove();
  const spoke = fresh.querySelector('[data-kind="message"]') !== null;
  $('log').append(fresh);
  while ($('log').childElementCount > LOG_LENGTH) $('log').firstElementChild.remove();
  if (document.hidden) return;
  if (following) scrollToEnd();
  else if (spoke) $('newest').hidden = false;
}

function scrollToEnd() {
  $('scroll').scrollTop = $('scroll').scrollHeight;
  $('newest').hidden = true;
}

$('newest').addEventListener('click', scrollToEnd);
$('scroll').addEventListener('scroll', () => {
  const { scrollHeight, scrollTop, clientHeight } = $('scroll');
  following = scrollHeight - scrollTop - clientHeight < 40;
  if (following) $('newest').hidden = true;
});
new ResizeObserver(() => { if (following) scrollToEnd(); }).observe($('scroll'));

document.addEventListener('visibilitychange', () => {
  drawLog();
  if (document.hidden) return;
  if (following) scrollToEnd();
  unread = 0;
  drawTitle();
});

function drawTitle() {
  const title = `${unread ? `(${unread}) ` : ''}${here.room} · Chat`;
  if (document.title !== title) document.title = title;
}

// A link for others: to the room, without the user's name.

$('share').addEventListener('click', async () => {
  const link = new URL(`/?${new URLSearchParams({ room: here.room })}`, location.href).href;
  try {
    await navigator.clipboard.writeText(link);
    $('share').textContent = 'Copied';
    setTimeout(() => { $('share').textContent = 'Copy link'; }, 2000);
  } catch {
    prompt('A link to this room', link);
  }
});

function hint(text) { $('hint').textContent = text; }

follow();
