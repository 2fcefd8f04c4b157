// What the client promises: frames, closes, and how the room comes back.

import { joinRoom } from '../presence.js';
import { fakeBrowser } from './fakes.js';
import { dial, live, state, diff, equal } from './helpers.js';

export const tests = {
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
};
