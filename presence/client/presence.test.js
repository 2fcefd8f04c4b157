// What the client promises. Runs in node (`node run-tests.mjs`) and in a page (`test.html`).

import { joinRoom, PresenceError } from './presence.js';
import { fakeBrowser } from './fakes.js';

export const tests = {
  async 'the address is made from room and user, encoded, on the page\'s own host'() {
    const url = (target, location) => {
      const browser = fakeBrowser();
      if (location) browser.env.location = location;
      joinRoom(target, { env: browser.env, resume: false });
      return browser.socket.url;
    };
    equal(url({ room: 'lobby' }), 'ws://chat.example/ws/lobby');
    equal(url({ room: 'a/b c', user: 'ann+bob &?' }), 'ws://chat.example/ws/a%2Fb%20c?user=ann%2Bbob%20%26%3F');
    equal(url({ room: 'lobby', path: '/rooms' }, 'https://x.example/'), 'wss://x.example/rooms/lobby');
    equal(url('wss://far.example/ws/lobby?user=ann'), 'wss://far.example/ws/lobby?user=ann');
    equal(url('/ws/lobby'), 'ws://chat.example/ws/lobby');
  },

  async 'a name that the server would refuse is refused before dialling'() {
    const { env, sockets } = fakeBrowser();
    for (const room of ['', '.', '..', 'a\nb', 'a\u007f', '\u0085', 'é'.repeat(128), '\ud800', undefined, 7]) {
      throws('bad_name', () => joinRoom({ room }, { env }));
    }
    throws('bad_name', () => joinRoom({ room: 'lobby', user: '' }, { env }));
    equal(sockets.length, 0);
    joinRoom({ room: 'x'.repeat(255), user: '😀' }, { env });
    equal(sockets.length, 1);
  },

  async 'the first state is told by sync alone'() {
    const { room, socket, told } = dial();
    socket.open();
    equal(room.status.state, 'connecting');
    socket.says(state(1, { ann: ['a1', 'me'], bob: ['b1'] }, { anonymous: 2 }));
    equal(told, ['status live', 'count 2+2', 'sync ann bob']);
    equal([room.me, room.anonymous, room.others.map(({ user }) => user)], ['me', 2, ['bob']]);
    equal([...room.get('ann').presences.keys()], ['a1', 'me']);
    equal(room.get('cyd'), undefined);
  },

  async 'a user with many tabs joins with the first, leaves with the last, and is updated between'() {
    const { room, socket, told } = live({ ann: ['me'] });
    socket.says(diff(1, { joins: [['bob', 'b1']] }));
    socket.says(diff(2, { joins: [['bob', 'b2']] }));
    socket.says(diff(3, { leaves: [['bob', 'b1']] }));
    equal([...room.get('bob').presences.keys()], ['b2']);
    socket.says(diff(4, { leaves: [['bob', 'b2']] }));
    equal(told, [
      'join bob', 'count 2+0', 'sync ann bob', 'update bob b1 -> b1,b2', 'sync ann bob',
      'update bob b1,b2 -> b2', 'sync ann bob', 'leave bob', 'count 1+0', 'sync ann',
    ]);
  },

  async 'a new meta is an update with the member as it was, never a leave and a join'() {
    const { room, socket } = live({ ann: ['me'], bob: ['b1'] });
    const seen = [];
    for (const event of ['join', 'leave', 'update']) room.on(event, (now, old) => seen.push([event, now, old]));
    socket.says(diff(1, { updates: [['bob', 'b1', { status: 'busy' }]] }));
    equal(seen.map(([event]) => event), ['update']);
    const [[, now, old]] = seen;
    equal([now.presences.get('b1'), old.presences.get('b1')], [{ status: 'busy' }, {}]);
    equal(now === room.get('bob'), true);
  },

  async 'joins are applied before leaves, so that a user who changes presence does not flicker'() {
    const { room, socket, told } = live({ ann: ['me'], bob: ['b1'] });
    socket.says(diff(1, { leaves: [['bob', 'b1']], joins: [['bob', 'b2', { n: 1 }]] }));
    equal(told, ['update bob b1 -> b2', 'sync ann bob']);
    equal(room.get('bob').presences.get('b2'), { n: 1 });
  },

  async 'join, update and leave of different users in one diff are told in that order'() {
    const { socket, told } = live({ ann: ['me'], bob: ['b1'], cyd: ['c1'] });
    socket.says(diff(1, { leaves: [['bob', 'b1']], updates: [['cyd', 'c1', { n: 1 }]], joins: [['dan', 'd1']] }));
    equal(told, ['join dan', 'update cyd c1 -> c1', 'leave bob', 'sync ann cyd dan']);
  },

  async 'anonymous visitors are a count'() {
    const { room, socket, told } = live({ ann: ['me'] });
    socket.says(diff(1, { anonymous: 3 }));
    equal([room.anonymous, told], [3, ['count 1+3', 'sync ann']]);
  },

  async 'hostile names are ordinary users'() {
    const names = ['__proto__', 'constructor', 'toString', 'hasOwnProperty', '<img src=x onerror=alert(1)>', ' '];
    const { room, socket } = live({ ann: ['me'] });
    names.forEach((name, i) => socket.says(diff(1 + i, { joins: [[name, '__proto__', { __proto__x: 1 }]] })));
    equal([...room.members.keys()], ['ann', ...names]);
    equal(room.get('__proto__').presences.size, 1);
    equal(room.get('valueOf'), undefined);
    names.forEach((name, i) => socket.says(diff(7 + i, { leaves: [[name, '__proto__']] })));
    equal([...room.members.keys()], ['ann']);
    equal({}.x, undefined);
  },

  async 'a meta with hostile keys pollutes nothing'() {
    const { room, socket } = live({ ann: ['me'] });
    socket.says('{"type":"presence.diff","room":"lobby","epoch":"e","from":1,"version":2,"joins":[{"user":"bob","id":'
      + '"b1","meta":{"__proto__":{"polluted":1}}}],"leaves":[],"updates":[],"anonymous":0}');
    equal([{}.polluted, room.get('bob').presences.get('b1').polluted], [undefined, undefined]);
  },

  async 'a diff before the state waits for it, and is used only if it is newer'() {
    const { room, socket, told } = dial();
    socket.open();
    socket.says(diff(3, { joins: [['old', 'o1']] }));
    socket.says(diff(5, { joins: [['bob', 'b1']] }));
    socket.says({ ...diff(6, { joins: [['alien', 'x']] }), epoch: 'another' });
    equal([told, room.members.size], [[], 0]);
    socket.says(state(5, { ann: ['me'] }));
    equal([...room.members.keys()], ['ann', 'bob']);
    equal(room.status.state, 'live');
    socket.says(diff(6, { joins: [['cyd', 'c1']] }));
    equal(room.members.size, 3);
  },

  async 'early diffs are dropped when a listener leaves at the first news'() {
    const { room, browser, socket } = dial();
    socket.open();
    socket.says(diff(5, { joins: [['bob', 'b1']] }));
    room.on('sync', () => room.leave());
    socket.says(state(5, { ann: ['me'] }));
    equal([room.status.state, room.members.size, browser.sockets.length], ['left', 0, 1]);
  },

  async 'a hole between the state and the early diffs is a gap'() {
    const { room, socket } = dial();
    socket.open();
    socket.says(diff(6, { joins: [['bob', 'b1']] }));
    socket.says(diff(7, { joins: [['cyd', 'c1']] }));
    socket.says(state(5, { ann: ['me'] }));
    equal([room.status.state, room.status.why, [...room.members.keys()]], ['reconnecting', 'gap', ['ann']]);
  },

  async 'a second state replaces the first, and only the net difference is told'() {
    const { socket, told } = live({ ann: ['me'], bob: ['b1'], cyd: ['c1'] });
    socket.says(state(1, { ann: ['me'], bob: ['b1'], cyd: ['c1'] }));
    equal(told, ['sync ann bob cyd']);
    socket.says(state(9, { ann: ['me'], cyd: ['c2'], dan: ['d1'] }));
    equal(told.slice(1), ['join dan', 'update cyd c1 -> c2', 'leave bob', 'sync ann cyd dan']);
    socket.says(diff(9, { leaves: [['dan', 'd1']] }));
    equal(told.at(-1), 'sync ann cyd');
  },

  async 'a gap never gives a wrong roster: the room reconnects and says so'() {
    const { room, browser, socket, clock, told } = live({ ann: ['me'], bob: ['b1'] });
    socket.says(diff(2, { joins: [['ghost', 'g1']] }));
    equal(told, ['status reconnecting gap']);
    equal([room.get('ghost'), socket.onmessage], [undefined, null]);
    socket.says(diff(1, { joins: [['late', 'l1']] })); // the old socket is deaf from now on
    clock.pass(250);
    browser.socket.open();
    browser.socket.says(state(4, { ann: ['me2'], bob: ['b1'], cyd: ['c1'] }));
    equal(told.slice(1), ['status reconnecting gap', 'status live', 'join cyd', 'update ann me -> me2', 'count 3+0',
      'sync ann bob cyd']);
  },

  async 'a repeated diff, another epoch and a diff that contradicts itself are gaps too'() {
    const frames = [
      diff(0, { joins: [['bob', 'b1']] }),
      { ...diff(1, { joins: [['bob', 'b1']] }), epoch: 'another' },
      diff(1, { joins: [['bob', 'b1']], leaves: [['bob', 'b1']] }),
    ];
    for (const frame of frames) {
      const { room, socket } = live({ ann: ['me'] });
      socket.says(frame);
      equal([room.status.state, room.status.why, room.members.size], ['reconnecting', 'gap', 1]);
    }
  },

  async 'after a reconnect only the net difference is told, and the roster stands meanwhile'() {
    const { room, browser, socket, clock, told } = live({ ann: ['me'], bob: ['b1'], cyd: ['c1'] });
    socket.drops();
    equal([told, room.members.size], [['status reconnecting lost 1006'], 3]);
    clock.pass(250);
    browser.socket.open();
    browser.socket.says(state(7, { cyd: ['c1'], bob: ['b1'], ann: ['me'] }));
    equal(told.slice(2), ['status live', 'sync ann bob cyd']);
    told.length = 0;
    browser.socket.drops();
    clock.pass(500);
    browser.socket.open();
    browser.socket.says({ ...state(1, { ann: ['me3'], dan: ['d1'] }), epoch: 'a new life' });
    equal(told.slice(2), ['status live', 'join dan', 'update ann me -> me3', 'leave bob', 'leave cyd', 'count 2+0',
      'sync ann dan']);
  },

  async 'metas are compared by content, not by the order of their keys'() {
    const { socket, told } = live({ ann: ['me'], bob: ['b1'] });
    socket.says(diff(1, { updates: [['bob', 'b1', { a: 1, b: { c: [1, { d: null }] } }]] }));
    told.length = 0;
    const again = state(2, { ann: ['me'], bob: ['b1'] });
    again.members[1].presences[0].meta = { b: { c: [1, { d: null }] }, a: 1 };
    socket.says(again);
    equal(told, ['sync ann bob']);
    again.members[1].presences[0].meta = { b: { c: [1, { d: 0 }] }, a: 1 };
    socket.says(again);
    equal(told.slice(1), ['update bob b1 -> b1', 'sync ann bob']);
  },

  async 'the last meta is sent when the room is live, and again after each reconnect and rejoin'() {
    const { room, browser, socket, clock } = dial();
    room.update({ n: 1 });
    room.update({ n: 2 });
    socket.open();
    equal(socket.sent, []);
    socket.says(state(1, { ann: ['me'] }));
    room.update({ n: 3 });
    equal(socket.sent.map(metaOf), [2, 3]);
    socket.drops();
    room.update({ n: 4 });
    clock.pass(250);
    browser.socket.open();
    browser.socket.says(state(5, { ann: ['me2'] }));
    equal(browser.socket.sent.map(metaOf), [4]);
    room.leave();
    room.update({ n: 5 });
    room.join();
    equal(browser.socket.sent.slice(1), ['{"type":"leave"}', '{"type":"join"}']);
    browser.socket.says(state(7, { ann: ['me3'] }));
    equal(metaOf(browser.socket.sent[3]), 5);
  },

  async 'a meta refused while the store is away is sent again'() {
    const { room, socket, clock } = live({ ann: ['me'] });
    room.update({ n: 1 });
    socket.says({ type: 'error', code: 'unavailable', message: 'the store is away' });
    clock.pass(750);
    equal(socket.sent.map(metaOf), [1, 1]);
    clock.pass(60000);
    equal(socket.sent.length, 2);
  },

  async 'a meta that the server would refuse is refused at once'() {
    const { room, socket } = live({ ann: ['me'] });
    for (const meta of [null, [], 'x', 1, undefined, new Date(0)]) throws('bad_meta', () => room.update(meta));
    throws('too_large', () => room.update({ note: 'é'.repeat(2048) }));
    room.update({ note: 'x'.repeat(4096 - '{"note":""}'.length) });
    equal(socket.sent.length, 1);
  },

  async 'leave empties the roster and sticks when the socket is lost'() {
    const { room, browser, socket, clock, told } = live({ ann: ['me'], bob: ['b1'] });
    room.leave();
    equal(told, ['status left', 'count 0+0', 'sync ']);
    equal([socket.sent, room.me, room.members.size], [['{"type":"leave"}'], null, 0]);
    socket.says(diff(1, { joins: [['late', 'l1']] }));
    socket.says({ type: 'message', from: 'bob', text: 'late' });
    socket.drops(1012);
    clock.pass(3600000);
    browser.env.window.dispatchEvent(new Event('online'));
    equal([room.status.state, browser.sockets.length, told.length], ['left', 1, 3]);
    room.join();
    equal([room.status.state, browser.sockets.length], ['connecting', 2]);
  },

  async 'join after leave uses the open socket, and frames of the earlier stay are harmless'() {
    const { room, browser, socket, told } = live({ ann: ['me'], bob: ['b1'] });
    room.leave();
    room.join();
    equal([room.status.state, browser.sockets.length], ['connecting', 1]);
    socket.says(diff(1, { joins: [['cyd', 'c1']] }));
    equal(room.members.size, 0);
    told.length = 0;
    socket.says(state(4, { bob: ['b1'], cyd: ['c1'], ann: ['me2'] }));
    equal(told, ['status live', 'count 3+0', 'sync bob cyd ann']);
  },

  async 'leave while a reconnect is waiting or under way cancels it'() {
    for (const wait of [0, 250]) {
      const { room, browser, socket, clock } = live({ ann: ['me'] });
      socket.drops();
      clock.pass(wait);
      room.leave();
      clock.pass(3600000);
      equal([room.status.state, browser.sockets.length], ['left', wait ? 2 : 1]);
      equal([browser.socket.readyState > 1, clock.pending], [true, 0]);
    }
  },

  async 'close ends everything: socket, timers, worker and the page\'s events'() {
    const { room, browser, socket, clock, told } = live({ ann: ['me'] });
    room.close();
    room.close();
    equal([told, socket.closedWith.code], [['status closed 1000', 'count 0+0', 'sync '], 1000]);
    browser.env.window.dispatchEvent(new Event('online'));
    browser.env.window.dispatchEvent(Object.assign(new Event('pageshow'), { persisted: true }));
    equal([clock.pending, browser.workers[0].stopped, browser.sockets.length], [0, true, 1]);
    room.join();
    equal(browser.sockets.length, 2);
  },

  async 'a worker beats every third of max_age while the socket is open, and not a moment longer'() {
    const { browser, room, socket, clock } = dial({ maxAge: 60000 });
    equal(browser.workers.length, 0);
    socket.open();
    equal(browser.workers.length, 1);
    browser.workers[0].ticks();
    browser.workers[0].ticks();
    equal(socket.sent, ['"heartbeat"', '"heartbeat"']);
    socket.says(state(1, { ann: ['me'] }));
    equal(clock.pending, 0);
    socket.drops();
    equal(browser.workers[0].stopped, true);
    clock.pass(250);
    browser.socket.open();
    equal(browser.workers.length, 2);
    room.close();
    equal(browser.workers[1].stopped, true);
  },

  async 'without a worker the page\'s own timer beats'() {
    for (const worker of ['throws', 'missing', 'fails later']) {
      const { browser, socket, clock } = dial({ maxAge: 30000 }, { worker });
      socket.open();
      browser.workers[0]?.fails();
      socket.says(state(1, { ann: ['me'] }));
      clock.pass(9999);
      equal(socket.sent, []);
      clock.pass(1);
      equal(socket.sent, ['"heartbeat"']);
      clock.pass(20000);
      equal(socket.sent.length, 3);
      socket.drops(1008);
      equal(clock.pending, 0);
    }
  },

  async 'an enormous max_age does not overflow the timer into a flood'() {
    const { socket, clock } = dial({ maxAge: 1e15 }, { worker: 'missing' });
    socket.open();
    socket.says(state(1, { ann: ['me'] }));
    clock.pass(2 ** 31 - 2);
    equal(socket.sent, []);
  },

  async 'a max_age that is none is refused, for it would make a flood'() {
    const { env } = fakeBrowser();
    for (const maxAge of [0, -1, NaN, null, 'soon']) {
      throws(undefined, () => joinRoom({ room: 'lobby' }, { maxAge, env }));
    }
  },

  async 'the source given to a real worker really beats'() {
    if (typeof Worker === 'undefined') return 'skipped: no Worker here';
    const browser = fakeBrowser();
    browser.env.Worker = Worker;
    const room = joinRoom({ room: 'lobby' }, { maxAge: 30, env: browser.env });
    const beat = new Promise((resolve) => { browser.socket.send = resolve; });
    browser.socket.open();
    equal(await beat, '"heartbeat"');
    room.close();
    return undefined;
  },

  async 'a text that the server would obey is refused, and nothing is sent'() {
    const { room, socket } = live({ ann: ['me'] });
    const reserved = ['"heartbeat"', '{"type":"leave"}', '{"type":"join"}', '{"type":"update"}',
      ' \n{"type":"leave","x":1}\t', '{"t\\u0079pe":"le\\u0061ve"}', '{"type":"x","type":"leave"}'];
    for (const text of reserved) throws('reserved_text', () => room.send(text));
    equal(socket.sent, []);
  },

  async 'every other text is said as it is'() {
    const { room, socket } = live({ ann: ['me'] });
    const texts = ['hello', '', 'heartbeat', ' "heartbeat"', '{"type":"heartbeat"}', '{"type":"say"}',
      '{"type":["leave"]}', '["leave"]', '"leave"', 'null', '{', '{"a":{"type":"leave"}}', '{type:leave}', '{"__proto__":{"type":"leave"}}'];
    for (const text of texts) room.send(text);
    equal(socket.sent, texts);
  },

  async 'send refuses what cannot arrive, with a reason'() {
    const { room, socket } = dial();
    throws('not_live', () => room.send('early'));
    socket.open();
    throws('not_live', () => room.send('early'));
    socket.says(state(1, { ann: ['me'] }));
    throws('too_large', () => room.send('é'.repeat(32769)));
    throws(undefined, () => room.send({ type: 'leave' }));
    room.send('é'.repeat(32768));
    socket.readyState = 2;
    throws('not_live', () => room.send('late'));
    equal(socket.sent.length, 1);
  },

  async 'messages come with their sender, also before the sender\'s join'() {
    const { room, socket } = live({ ann: ['me'] });
    const heard = [];
    room.on('message', (message) => heard.push(message));
    socket.says({ type: 'message', from: 'bob', text: 'hi' });
    socket.says({ type: 'message', from: null, text: '{"type":"presence.state"}' });
    equal(heard, [{ from: 'bob', text: 'hi' }, { from: null, text: '{"type":"presence.state"}' }]);
  },

  async 'the server\'s errors and frames that are no frames are told as errors, and the room goes on'() {
    const { room, socket } = live({ ann: ['me'] });
    const errors = [];
    room.on('error', (error) => errors.push(error.code));
    socket.says({ type: 'error', code: 'not_joined', message: 'x' });
    for (const junk of ['', 'x', '"x"', 'null', '[]', '7', '{}', '{"type":"message"}']) socket.says(junk);
    socket.onmessage({ data: new ArrayBuffer(8) });
    socket.says({ type: 'something.new', x: 1 });
    equal(errors, ['not_joined', ...Array(9).fill('malformed')]);
    equal(room.status.state, 'live');
  },

  async 'an unreadable state or diff leads to a new connection, never to half a change'() {
    const good = diff(1, { joins: [['bob', 'b1']] });
    const frames = [
      { ...good, leaves: undefined }, { ...good, joins: {} }, { ...good, version: '2' }, { ...good, anonymous: null },
      { ...good, from: null }, { ...good, updates: [null] }, { ...good, joins: [...good.joins, { user: 'cyd' }] },
      { ...good, joins: [{ user: 7, id: 'x', meta: {} }] }, { ...good, leaves: [{ user: 'ann' }] },
      { type: 'presence.state' }, { ...state(2, {}), members: [{ user: 'ann' }] },
      { ...state(2, { ann: ['me'] }), me: 7 }, { ...state(2, { ann: ['me'] }), epoch: null },
    ];
    for (const frame of frames) {
      const { room, socket } = live({ ann: ['me'] });
      const errors = [];
      room.on('error', (error) => errors.push(error.code));
      socket.says(frame);
      equal([room.status.state, room.status.why, errors], ['reconnecting', 'malformed', ['malformed']]);
      equal([...room.members.keys()], ['ann']);
    }
  },

  async 'a server in another mode is told apart from one that does not answer'() {
    const { room, socket, clock } = dial();
    socket.open();
    socket.says({ type: 'presence', payload: { channel_name: 'lobby', members: [], lurkers: 1 } });
    equal([room.status.state, clock.pending], ['closed', 0]);
    equal(/diff/.test(room.status.reason), true);
  },

  async 'final close codes end the room with their reason'() {
    for (const code of [1000, 1008, 4409]) {
      const { room, browser, socket, clock } = live({ ann: ['me'] }, { resume: code !== 4409 });
      socket.drops(code, 'because');
      const { state: now, reason } = room.status;
      equal([now, room.status.code, reason, room.members.size], ['closed', code, 'because', 0]);
      clock.pass(3600000);
      equal(browser.sockets.length, 1);
    }
  },

  async 'every other close code leads to a reconnect'() {
    for (const code of [1001, 1002, 1005, 1006, 1007, 1009, 1011, 1012, 1013, 1015, 4408]) {
      const { room, browser, socket, clock } = live({ ann: ['me'] });
      socket.drops(code, 'x');
      equal([room.status.state, room.status.code, room.status.reason], ['reconnecting', code, 'x']);
      clock.pass(2000);
      equal(browser.sockets.length, 2);
    }
  },

  async 'the delay is random below a ceiling that doubles up to the cap'() {
    const ceilings = [];
    const { browser, clock, room } = dial({}, { random: () => 1 });
    for (let i = 0; i < 9; i += 1) {
      browser.socket.drops();
      ceilings.push(room.status.delay);
      clock.pass(room.status.delay);
    }
    equal(ceilings, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
    equal(room.status.attempt, 9);
    const lucky = dial({}, { random: () => 0 });
    lucky.socket.drops();
    equal(lucky.room.status.delay, 0);
  },

  async 'a restarting server gets its pages back spread over two seconds'() {
    const { room, socket } = live({ ann: ['me'] }, {}, { random: () => 1 });
    socket.drops(1012, 'restarting');
    equal([room.status.delay, room.status.reason], [2000, 'restarting']);
  },

  async 'a connection that dies young does not reset the back-off, one that lived does'() {
    const { room, browser, clock } = dial({}, { random: () => 1 });
    const delays = [];
    for (const life of [0, 9999, 9999, 10000]) {
      browser.socket.open();
      browser.socket.says(state(1, { ann: ['me'] }));
      clock.pass(life);
      browser.socket.drops(1011);
      delays.push(room.status.delay);
      clock.pass(room.status.delay);
    }
    equal(delays, [500, 1000, 2000, 500]);
  },

  async 'a connection without a first frame is given up in time'() {
    const { room, browser, socket, clock } = dial();
    socket.open();
    clock.pass(15000);
    equal([room.status.state, room.status.why, socket.closedWith], ['reconnecting', 'timeout', null]);
    clock.pass(250);
    equal(browser.sockets.length, 2);
    browser.socket.open();
    browser.socket.says(state(1, { ann: ['me'] }));
    equal(socket.closedWith.code, 1000);
  },

  async 'a network that is back, or a page seen again, does not wait for the timer'() {
    for (const wake of [
      ({ env }) => env.window.dispatchEvent(new Event('online')),
      ({ env }) => env.document.dispatchEvent(new Event('visibilitychange')),
      (_, room) => room.join(),
    ]) {
      const { room, browser, socket, clock } = live({ ann: ['me'] });
      socket.drops();
      browser.env.document.hidden = true;
      browser.env.document.dispatchEvent(new Event('visibilitychange'));
      equal(browser.sockets.length, 1);
      browser.env.document.hidden = false;
      wake(browser, room);
      wake(browser, room);
      equal([browser.sockets.length, room.status.delay], [2, 0]);
      browser.socket.open();
      browser.socket.says(state(3, { ann: ['me2'] }));
      clock.pass(60000);
      equal([browser.sockets.length, room.status.state], [2, 'live']);
      wake(browser, room);
      equal(browser.sockets.length, 2);
    }
  },

  async 'a live page seen again sends a heartbeat at once, which shows a dead socket'() {
    const { browser, socket } = live({ ann: ['me'] });
    browser.env.document.dispatchEvent(new Event('visibilitychange'));
    equal(socket.sent, ['"heartbeat"']);
  },

  async 'a page that goes into the browser\'s cache hangs up, and one that is merely reloaded leaves that to the browser'() {
    const { browser, socket } = live({ ann: ['me'] });
    const hide = (persisted) => browser.env.window.dispatchEvent(Object.assign(new Event('pagehide'), { persisted }));
    hide(false);
    equal(socket.closedWith, null);
    hide(true);
    equal([socket.closedWith.code, browser.workers[0].stopped, browser.clock.pending], [1000, true, 0]);
  },

  async 'a page from the browser\'s cache dials afresh, however its socket looks'() {
    const { room, browser, socket } = live({ ann: ['me'] });
    const show = (persisted) => browser.env.window.dispatchEvent(Object.assign(new Event('pageshow'), { persisted }));
    show(false);
    equal(browser.sockets.length, 1);
    show(true);
    equal([browser.sockets.length, room.status.why, socket.onmessage], [2, 'restored', null]);
  },

  async 'a socket that cannot be made closes the room with the reason'() {
    const browser = fakeBrowser();
    browser.env.WebSocket = class { constructor() { throw new Error('insecure'); } };
    const room = joinRoom({ room: 'lobby' }, { env: browser.env });
    equal([room.status.state, room.status.reason, browser.clock.pending], ['closed', 'insecure', 0]);
  },

  async 'a tab has one token, after a reload too, and sends it whenever it connects'() {
    const memory = new Map();
    const first = dial({}, { memory });
    const token = tokenOf(first.socket);
    equal(/^[\w-]{16,128}$/.test(token), true);
    first.socket.drops();
    first.clock.pass(1000);
    equal([tokenOf(first.browser.socket), first.browser.sockets.length], [token, 2]);
    // A page that is loaded anew is another page with what the tab remembers.
    equal(tokenOf(dial({}, { memory: new Map(memory) }).socket), token);
    equal(first.browser.socket.url, `ws://chat.example/ws/lobby?user=ann&session=${token}`);
    const other = fakeBrowser({ memory: new Map(memory) });
    joinRoom('/ws/attic', { env: other.env });
    equal(tokenOf(other.socket) === token, false);
  },

  async 'two room objects of one page have a token each, and one that is closed hands its own on'() {
    const memory = new Map();
    const { browser, room, socket } = dial({}, { memory });
    const join = () => joinRoom({ room: 'lobby', user: 'ann' }, { env: browser.env });
    join();
    const twin = tokenOf(browser.socket);
    equal(twin === tokenOf(socket), false);
    room.close();
    join();
    equal(tokenOf(browser.socket), tokenOf(socket));
  },

  async 'a tab whose token another has comes back with a fresh one, and remembers that'() {
    const memory = new Map();
    const { browser, room, socket, clock } = live({ ann: ['me'] }, {}, { memory });
    socket.drops(4409, 'taken over');
    equal([room.status.state, room.status.code, room.members.size], ['reconnecting', 4409, 1]);
    clock.pass(1000);
    const fresh = tokenOf(browser.socket);
    equal(fresh === tokenOf(socket), false);
    equal([...memory.values()], [fresh]);
    browser.socket.drops();
    clock.pass(2000);
    equal(tokenOf(browser.socket), fresh);
  },

  async 'who says no, has a session of their own or nothing to remember it by is served all the same'() {
    const { env, sockets } = fakeBrowser();
    joinRoom({ room: 'lobby' }, { env, resume: false });
    joinRoom('/ws/lobby?session=my-own-token-0123456789', { env });
    equal(sockets.map(({ url }) => url), [
      'ws://chat.example/ws/lobby', 'ws://chat.example/ws/lobby?session=my-own-token-0123456789',
    ]);
    const throwing = { getItem() { throw new Error('no'); }, setItem() { throw new Error('no'); } };
    for (const storage of [null, throwing, { getItem: () => 'bad token', setItem() {} }]) {
      const browser = fakeBrowser();
      joinRoom({ room: 'lobby' }, { env: { ...browser.env, storage } });
      equal(/session=[0-9a-f]{32}$/.test(browser.socket.url), true);
    }
  },

  async 'a socket that is given up is left open until the next one has its presence'() {
    const { room, browser, socket, clock } = live({ ann: ['me'] });
    socket.says(diff(7, { joins: [['bob', 'b1']] }));
    equal([room.status.why, socket.closedWith], ['gap', null]);
    clock.pass(1000);
    browser.socket.open();
    equal(socket.closedWith, null);
    browser.socket.says(state(9, { ann: ['me'], bob: ['b1'] }));
    equal([socket.closedWith.code, room.members.size], [1000, 2]);
    browser.socket.says(diff(20, {}));
    room.close();
    equal(browser.sockets.map(({ readyState }) => readyState > 1), [true, true]);
  },

  async 'a listener that throws is reported and stops nobody else'() {
    const { room, browser, socket } = live({ ann: ['me'] });
    const heard = [];
    room.on('join', () => { throw new Error('mine'); });
    const off = room.on('join', ({ user }) => heard.push(user));
    socket.says(diff(1, { joins: [['bob', 'b1']] }));
    off();
    socket.says(diff(2, { joins: [['cyd', 'c1']] }));
    equal([heard, browser.reports.length], [['bob'], 2]);
  },

  async 'a listener may leave, close or rejoin in the middle of the news'() {
    for (const act of [(room) => room.leave(), (room) => room.close(), (room) => { room.leave(); room.join(); }]) {
      const { room, browser, socket } = live({ ann: ['me'] });
      room.on('join', () => act(room));
      socket.says(diff(1, { joins: [['bob', 'b1']] }));
      equal([room.members.size, browser.reports], [0, []]);
    }
  },
};

// Helpers.

function dial(options = {}, world = {}) {
  const browser = fakeBrowser(world);
  const room = joinRoom({ room: 'lobby', user: 'ann' }, { ...options, env: browser.env });
  return { room, browser, socket: browser.socket, clock: browser.clock, told: listen(room) };
}

function live(users, options, world) {
  const dialled = dial(options, world);
  dialled.socket.open();
  dialled.socket.says(state(1, users));
  dialled.told.length = 0;
  return dialled;
}

function state(version, users, { anonymous = 0 } = {}) {
  const members = Object.entries(users)
    .map(([user, ids]) => ({ user, presences: ids.map((id) => ({ id, meta: {} })) }));
  const me = users.ann?.at(-1) ?? 'me';
  return { type: 'presence.state', room: 'lobby', epoch: 'e', version, members, anonymous, me };
}

function diff(from, { joins = [], leaves = [], updates = [], anonymous = 0 }) {
  const entries = (list) => list.map(([user, id, meta = {}]) => ({ user, id, meta }));
  return {
    type: 'presence.diff', room: 'lobby', epoch: 'e', from, version: from + 1, anonymous,
    joins: entries(joins), leaves: entries(leaves), updates: entries(updates),
  };
}

/** Everything a room tells, as short lines. */
function listen(room) {
  const told = [];
  const ids = ({ presences }) => [...presences.keys()].join();
  room.on('sync', ({ members }) => told.push(`sync ${[...members.keys()].join(' ')}`));
  room.on('join', ({ user }) => told.push(`join ${user}`));
  room.on('leave', ({ user }) => told.push(`leave ${user}`));
  room.on('update', (now, old) => told.push(`update ${now.user} ${ids(old)} -> ${ids(now)}`));
  room.on('count', ({ users, anonymous }) => told.push(`count ${users}+${anonymous}`));
  room.on('status', ({ state: now, why, code }) => told.push(['status', now, why, code].filter(Boolean).join(' ')));
  return told;
}

const tokenOf = ({ url }) => new URL(url).searchParams.get('session');

const metaOf = (text) => JSON.parse(text).meta.n;

function equal(actual, expected) {
  const [a, b] = [JSON.stringify(actual), JSON.stringify(expected)];
  if (a !== b) throw new Error(`expected ${b}\n     got ${a}`);
}

/** `code` undefined: any error that is not a PresenceError. */
function throws(code, call) {
  let error = null;
  try { call(); } catch (thrown) { error = thrown; }
  if (!error) throw new Error(`expected ${code}, got no error`);
  equal(error instanceof PresenceError ? error.code : undefined, code);
}
