// States and diffs that come in parts.

import { joinRoom } from '../presence.js';
import { MAX_KEPT } from '../presence/sorter.js';
import { fakeBrowser } from './fakes.js';
import { connected, dial, diff, equal, listen, live, of, state, turnOver } from './helpers.js';

/** A state in pages, as the server sends one that is too large for a frame: `pages` are rosters. */
function paged(version, [first, ...others], options) {
  const further = others.map((users, place) => ({
    ...diff(version, { ...options, joins: entries(users) }), version, ...(place < others.length - 1 && { more: true }),
  }));
  return [{ ...state(version, first, options), more: true }, ...further];
}

const entries = (users) => Object.entries(users).flatMap(([user, ids]) => ids.map((id) => [user, id]));

/** The texts of a state without an end, of a million characters each. `form` makes another frame of each part. */
function* endless(room, form = (frame) => frame) {
  const meta = { a: 'x'.repeat(1000000) };
  yield JSON.stringify(of(room, { ...state(1, { ann: ['me'] }), more: true }));
  for (let n = 0; ; n += 1) {
    const part = { ...diff(1, { joins: [[`user-${n}`, `id-${n}`, meta]] }), version: 1, more: true };
    yield JSON.stringify(of(room, form(part)));
  }
}

/** Says what there is until the page has had enough. Gives how many characters that were. */
function saysUntilClosed(socket, connection, texts) {
  let said = 0;
  for (const text of texts) {
    if (connection.status.state === 'closed') return said;
    if (said > 2 * MAX_KEPT) throw new Error('the page takes whatever comes');
    socket.says(text);
    said += text.length;
  }
  return said;
}

/** A diff in parts, of which the last leads to the next version. */
function split(from, parts) {
  return parts.map((part, place) => ({
    ...diff(from, part), ...(place < parts.length - 1 && { version: from, more: true }),
  }));
}

export const tests = {
  async 'a state in pages is told by one sync, after the last of them'() {
    const { room, socket, told } = dial();
    socket.open();
    const pages = paged(7, [{ ann: ['me'] }, { bob: ['b1'], cyd: ['c1'] }, { bob: ['b2'], dan: ['d1'] }], { anonymous: 2 });
    for (const page of pages.slice(0, -1)) {
      socket.says(page);
      equal([told, room.status.state, room.members.size, room.me], [[], 'connecting', 0, null]);
    }
    socket.says(pages.at(-1));
    equal(told, ['status live', 'count 4+2', 'sync ann bob cyd dan']);
    equal([room.me, [...room.get('bob').presences.keys()]], ['me', ['b1', 'b2']]);
    socket.says(diff(7, { leaves: [['bob', 'b1']], anonymous: 2 }));
    equal(told.slice(3), ['update bob b1,b2 -> b2', 'sync ann bob cyd dan']);
  },

  async 'a diff in parts is told as one, after the last of them'() {
    const { room, socket, told } = live({ ann: ['me'], bob: ['b1'], cyd: ['c1'] });
    const parts = split(1, [
      { joins: [['dan', 'd1'], ['bob', 'b2']] },
      { joins: [['eve', 'e1']], updates: [['cyd', 'c1', { n: 1 }]] },
      { leaves: [['bob', 'b1']], anonymous: 3 },
    ]);
    for (const part of parts.slice(0, -1)) socket.says(part);
    equal([told, [...room.members.keys()], room.anonymous], [[], ['ann', 'bob', 'cyd'], 0]);
    socket.says(parts.at(-1));
    equal(told, ['join dan', 'join eve', 'update bob b1 -> b2', 'update cyd c1 -> c1', 'count 5+3', 'sync ann bob cyd dan eve']);
    equal(room.get('cyd').presences.get('c1'), { n: 1 });
    socket.says(diff(2, { leaves: [['dan', 'd1']], anonymous: 3 }));
    equal([room.status.state, room.members.size], ['live', 4]);
  },

  async 'a second state in pages replaces the roster at its last page, and only the net difference is told'() {
    const { room, socket, told } = live({ ann: ['me'], bob: ['b1'], cyd: ['c1'] });
    const [first, second] = paged(9, [{ ann: ['me'] }, { cyd: ['c1'], dan: ['d1'] }]);
    socket.says(first);
    equal([told, room.members.size, room.status.state], [[], 3, 'live']);
    socket.says(second);
    equal(told, ['join dan', 'leave bob', 'sync ann cyd dan']);
  },

  async 'a connection that is lost between two parts leaves the old roster as it was'() {
    const half = [
      paged(5, [{ ann: ['me'] }, { dan: ['d1'] }, { eve: ['e1'] }]).slice(0, 2),
      split(1, [{ joins: [['dan', 'd1']], leaves: [['bob', 'b1']] }, { joins: [['eve', 'e1']] }]).slice(0, 1),
    ];
    for (const parts of half) {
      const { room, browser, socket, clock, told } = live({ ann: ['me'], bob: ['b1'] });
      for (const part of parts) socket.says(part);
      socket.drops();
      equal([told, [...room.members.keys()]], [['status reconnecting lost 1006'], ['ann', 'bob']]);
      clock.pass(500);
      browser.socket.open();
      equal([...room.members.keys()], ['ann', 'bob']);
      // The parts of before do not count for what the new connection sends.
      browser.socket.says(state(6, { ann: ['me'], bob: ['b1'], fay: ['f1'] }));
      equal(told.slice(2), ['status live', 'join fay', 'count 3+0', 'sync ann bob fay']);
      browser.socket.says(diff(6, { joins: [['gus', 'g1']] }));
      equal([room.status.state, room.members.size], ['live', 4]);
    }
  },

  async 'what comes first on a new connection does not go on with the parts of the lost one'() {
    // A diff may come before its state, and would be taken for the next part: a gap, or a change with members of the old parts.
    const halves = [
      [5, paged(5, [{ ann: ['me'] }, { dan: ['d1'] }, { eve: ['e1'] }]).slice(0, 2)],
      [1, split(1, [{ joins: [['dan', 'd1']] }, { joins: [['eve', 'e1']] }]).slice(0, 1)],
    ];
    for (const [version, parts] of halves) {
      const { room, browser, socket, clock, told } = live({ ann: ['me'], bob: ['b1'] });
      for (const part of parts) socket.says(part);
      socket.drops();
      clock.pass(500);
      browser.socket.open();
      told.length = 0;
      browser.socket.says(diff(version, { joins: [['fay', 'f1']] }));
      browser.socket.says(state(version, { ann: ['me'], bob: ['b1'] }));
      equal(told, ['status live', 'sync ann bob', 'join fay', 'count 3+0', 'sync ann bob fay']);
      equal([[...room.members.keys()], browser.sockets.length], [['ann', 'bob', 'fay'], 2]);
    }
  },

  async 'a part that does not belong to those before it is a gap'() {
    const [page, last] = paged(4, [{ ann: ['me'] }, { bob: ['b1'] }]);
    const [part, end] = split(4, [{ joins: [['bob', 'b1']] }, { joins: [['cyd', 'c1']] }]);
    const wrong = [
      [page, { ...last, from: 5, version: 5 }],
      [page, { ...last, epoch: 'another' }],
      [page, { ...last, version: 5 }],
      [page, { ...last, leaves: [{ user: 'ann', id: 'me' }] }],
      [part, { ...end, from: 5, version: 6 }],
      [part, { ...end, epoch: 'another' }],
      [part, { ...end, more: true }],
    ];
    for (const frames of wrong) {
      const { room, socket, told } = dial();
      socket.open();
      socket.says(state(4, { ann: ['me'] }));
      told.length = 0;
      for (const frame of frames) socket.says(frame);
      equal([told, [...room.members.keys()]], [['status reconnecting gap'], ['ann']]);
    }
  },

  async 'a state ends what was on its way before it, in parts or not'() {
    const { room, socket, told } = live({ ann: ['me'], bob: ['b1'] });
    socket.says(split(1, [{ joins: [['cyd', 'c1']] }, {}])[0]);
    socket.says(state(8, { ann: ['me'], bob: ['b1'], dan: ['d1'] }));
    equal([told, room.status.state], [['join dan', 'count 3+0', 'sync ann bob dan'], 'live']);
  },

  async 'a diff in parts that comes before its state waits for it'() {
    const { room, socket } = dial();
    socket.open();
    for (const part of split(5, [{ joins: [['bob', 'b1']] }, { joins: [['cyd', 'c1']] }])) socket.says(part);
    for (const page of paged(5, [{ ann: ['me'] }, { dan: ['d1'] }])) socket.says(page);
    equal([room.status.state, [...room.members.keys()].sort()], ['live', ['ann', 'bob', 'cyd', 'dan']]);
  },

  async 'what other rooms send between the parts of one is sorted as always'() {
    const { connection, socket } = connected();
    const lobby = connection.room('lobby');
    const attic = connection.room('attic');
    const told = listen(attic);
    const [first, second] = paged(1, [{ ann: ['me'] }, { bob: ['b1'] }]);
    const others = paged(3, [{ ann: ['x'] }, { eve: ['e1'] }]).map((page) => of('attic', page));
    for (const frame of [first, others[0], second, others[1]]) socket.says(frame);
    equal([[...lobby.members.keys()], told], [['ann', 'bob'], ['status live', 'count 2+0', 'sync ann eve']]);
  },

  async 'a room that is asked for between two pages is live after the last of them'() {
    const { connection, socket } = connected();
    const named = [];
    connection.on('room', (name) => named.push(name));
    const [first, second, third] = paged(3, [{ ann: ['me'] }, { bob: ['b1'] }, { cyd: ['c1'] }]).map((page) => of('attic', page));
    socket.says(first);
    socket.says(second);
    equal(named, []);
    const attic = connection.room('attic');
    await turnOver();
    equal([attic.status.state, attic.members.size], ['connecting', 0]);
    socket.says(third);
    equal([attic.status.state, [...attic.members.keys()]], ['live', ['ann', 'bob', 'cyd']]);
    for (const page of paged(1, [{ ann: ['me'] }, { dan: ['d1'] }])) socket.says(of('cellar', page));
    equal(named, ['cellar']);
    equal([...connection.room('cellar').members.keys()], ['ann', 'dan']);
  },

  async 'a room given by a URL may be that of a state in pages'() {
    const { env, sockets } = fakeBrowser();
    const room = joinRoom('/socket?user=ann', { env });
    sockets[0].open();
    for (const page of paged(1, [{ ann: ['me'] }, { bob: ['b1'] }])) sockets[0].says(page);
    equal([room.name, [...room.members.keys()]], ['lobby', ['ann', 'bob']]);
  },

  async 'a line that carries a page now and then has the time for all of them'() {
    const { room, browser, socket, clock } = dial();
    clock.pass(14999);
    socket.open();
    const pages = paged(1, Array.from({ length: 40 }, (_, i) => ({ [`user-${i}`]: [`id-${i}`] })));
    for (const page of pages) {
      clock.pass(14999);
      equal([room.status.state, browser.sockets.length], ['connecting', 1]);
      socket.says(page);
    }
    equal([room.status.state, room.members.size], ['live', 40]);
    clock.pass(60000);
    equal(room.status.state, 'live');
  },

  async 'pages that stop coming are given up, whatever else still comes'() {
    const { room, socket, clock } = dial();
    socket.open();
    socket.says(paged(1, [{ ann: ['me'] }, { bob: ['b1'] }])[0]);
    clock.pass(10000);
    socket.says({ type: 'news' });
    socket.says(of('attic', diff(3, { joins: [['eve', 'e1']] })));
    clock.pass(4999);
    equal(room.status.state, 'connecting');
    clock.pass(1);
    equal([room.status.state, room.status.why], ['reconnecting', 'timeout']);
  },

  async 'pages of another room are progress too, since they share the line'() {
    const { room, socket, clock } = dial();
    socket.open();
    for (const page of paged(1, [{ ann: ['x'] }, { bob: ['b1'] }, { cyd: ['c1'] }])) {
      clock.pass(14999);
      socket.says(of('attic', page));
    }
    clock.pass(14999);
    socket.says(state(1, { ann: ['me'] }));
    equal(room.status.state, 'live');
  },

  async 'a room of a hundred thousand users with the longest names is entered, also while diffs wait for it'() {
    const { room, socket } = dial();
    socket.open();
    const name = 'x'.repeat(249);
    const users = (from, count) => Object.fromEntries(
      Array.from({ length: count }, (_, n) => [`${name}${String(from + n).padStart(6, '0')}`, [`${'i'.repeat(30)}${from + n}`]]),
    );
    socket.says(diff(1, { joins: [['bob', 'b1']] }));
    const pages = Array.from({ length: 1000 }, (_, n) => users(n * 100, 100));
    for (const page of paged(1, [{ ann: ['me'] }, ...pages])) socket.says(page);
    equal([room.status.state, room.members.size], ['live', 100002]);
  },

  async 'a state without an end is given up when it is too large, and nothing of it is kept'() {
    const { room, browser, socket, clock, told } = dial();
    socket.open();
    const said = saysUntilClosed(socket, room, endless('lobby'));
    equal([said > MAX_KEPT, said < MAX_KEPT + 2000000], [true, true]);
    const reason = 'states and diffs of more than 134217728 characters wait for their end';
    equal(room.status, { state: 'closed', why: 'too_large', reason });
    equal([told, room.members.size, room.me], [['status closed too_large', 'count 0+0', 'sync '], 0, null]);
    equal([socket.closedWith.code, browser.sockets.length], [1000, 1]);
    clock.pass(3600000);
    equal(browser.sockets.length, 1);
    // The page may try again.
    room.join();
    browser.socket.open();
    browser.socket.says(state(1, { ann: ['me'] }));
    equal(room.status.state, 'live');
  },

  async 'so is a diff without an end, and what waits for a state that never comes'() {
    const afterState = live({ ann: ['me'] });
    const texts = endless('lobby');
    texts.next();
    saysUntilClosed(afterState.socket, afterState.room, texts);
    equal([afterState.room.status.why, afterState.room.members.size], ['too_large', 0]);
    const before = dial();
    before.socket.open();
    const whole = endless('lobby', ({ more, ...part }) => ({ ...part, version: 2 }));
    whole.next();
    saysUntilClosed(before.socket, before.room, whole);
    equal([before.room.status.why, before.room.members.size], ['too_large', 0]);
  },

  async 'what waits counts for all rooms of a connection together, whether the page asked for them or not'() {
    const { connection, socket } = connected();
    const lobby = connection.room('lobby');
    const rooms = ['lobby', ...Array.from({ length: 99 }, (_, n) => `room-${n}`)].map((name) => endless(name));
    function* inTurn() { for (;;) for (const texts of rooms) yield texts.next().value; }
    saysUntilClosed(socket, connection, inTurn());
    equal([connection.status.why, lobby.status.why, lobby.members.size], ['too_large', 'too_large', 0]);
  },

  async 'what waited for a state on a connection that was lost does not count any more'() {
    const { room, browser, clock } = dial();
    const meta = { a: 'x'.repeat(30000000) };
    for (let times = 0; times < 6; times += 1) {
      browser.socket.open();
      browser.socket.says(diff(1, { joins: [['bob', 'b1', meta]] }));
      equal(room.status.state === 'closed', false);
      browser.socket.drops();
      clock.pass(room.status.delay);
    }
    browser.socket.open();
    browser.socket.says(state(1, { ann: ['me'] }));
    equal([room.status.state, room.members.size], ['live', 1]);
  },

  async 'what waited for other rooms does not count any more when it is known which room is that of the URL'() {
    const { env, sockets } = fakeBrowser();
    const room = joinRoom('/socket?user=ann', { env });
    sockets[0].open();
    sockets[0].says(of('attic', diff(1, { joins: [['eve', 'e1', { a: 'x'.repeat(100000000) }]] })));
    sockets[0].says(state(1, { ann: ['me'] }));
    for (const part of split(1, [{ joins: [['bob', 'b1', { a: 'x'.repeat(50000000) }]] }, {}])) sockets[0].says(part);
    equal([room.name, room.status.state, room.members.size], ['lobby', 'live', 2]);
  },

  async 'what came to its end does not count any more'() {
    const { room, socket } = live({ ann: ['me'] });
    const meta = { a: 'x'.repeat(30000000) };
    for (let from = 1; from <= 6; from += 1) {
      const joins = [['bob', 'b1', meta]];
      for (const part of split(from, [{ joins }, {}])) socket.says(part);
    }
    equal([room.status.state, room.members.size], ['live', 2]);
  },
};
