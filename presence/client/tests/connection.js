// What the client promises: frames, closes, and how the room comes back.

import { joinRoom } from '../presence.js';
import { fakeBrowser } from './fakes.js';
import { dial, live, state, diff, tokenOf, equal, throws } from './helpers.js';

export const tests = {
  async 'the server\'s complaints are reported as errors, and the room goes on'() {
    const { room, socket } = live({ ann: ['me'] });
    const errors = [];
    room.on('error', (error) => errors.push([error.code, error.message]));
    socket.says({ type: 'error', code: 'not_joined', message: 'x' });
    equal([errors, room.status.state], [[['not_joined', 'x']], 'live']);
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
    for (const code of [1000, 1008, 4000, 4003, 4099, 4409]) {
      const { room, browser, socket, clock } = live({ ann: ['me'] }, { resume: code !== 4409 });
      socket.drops(code, 'because');
      const { state: now, reason } = room.status;
      equal([now, room.status.code, reason, room.members.size], ['closed', code, 'because', 0]);
      clock.pass(3600000);
      equal(browser.sockets.length, 1);
    }
  },

  async 'every other close code leads to a reconnect'() {
    for (const code of [1001, 1002, 1005, 1006, 1007, 1009, 1011, 1012, 1013, 1015, 3000, 3999, 4100, 4199, 4200, 4299, 4301, 4408, 4999]) {
      const { room, browser, socket, clock } = live({ ann: ['me'] });
      socket.drops(code, 'x');
      equal([room.status.state, room.status.code, room.status.reason], ['reconnecting', code, 'x']);
      clock.pass(2000);
      equal(browser.sockets.length, 2);
    }
  },

  async 'handshakes that are refused one after the other show as refused, unless the page is offline'() {
    const whys = (world, opens = () => false) => {
      const { browser, clock, room } = dial({}, world);
      return Array.from({ length: 5 }, (_, i) => {
        if (opens(i)) browser.socket.open();
        browser.socket.drops();
        clock.pass(room.status.delay);
        return room.status.why;
      });
    };
    equal(whys({}), ['lost', 'lost', 'refused', 'refused', 'refused']);
    equal(whys({ online: () => false }), Array(5).fill('lost'));
    equal(whys({}, (i) => i === 2), Array(5).fill('lost'));
  },

  async 'a socket that reports an error and never its close is lost all the same'() {
    const { room, browser, socket, clock } = dial();
    socket.onerror({});
    clock.pass(999);
    equal(room.status.state, 'connecting');
    clock.pass(1);
    equal([room.status.state, room.status.why, room.status.code], ['reconnecting', 'lost', 1006]);
    clock.pass(room.status.delay);
    browser.socket.onerror({});
    browser.socket.drops(); // as a browser does
    equal([room.status.attempt, clock.pending], [2, 1]);
  },

  async 'a refused page goes on trying, and is live as soon as it is let in'() {
    const { room, browser, clock } = dial();
    for (let i = 0; i < 20; i += 1) {
      browser.socket.drops();
      clock.pass(room.status.delay);
    }
    equal([room.status.why, room.status.code], ['refused', 1006]);
    browser.socket.open();
    browser.socket.says(state(1, { ann: ['me'] }));
    equal(room.status, { state: 'live' });
  },

  async 'each further try goes to the next URL of a list, and the token goes along'() {
    const targets = ['wss://a.example/ws/lobby', 'wss://b.example/ws/lobby', { room: 'lobby' }];
    const browser = fakeBrowser();
    const room = joinRoom(targets, { env: browser.env });
    browser.socket.open();
    browser.socket.says(state(1, { ann: ['me'] }));
    for (let i = 0; i < 3; i += 1) {
      browser.socket.drops();
      browser.clock.pass(room.status.delay);
    }
    const hosts = browser.sockets.map(({ url }) => new URL(url).host);
    equal(hosts, ['a.example', 'b.example', 'chat.example', 'a.example']);
    equal(new Set(browser.sockets.map(tokenOf)).size, 1);
    throws(undefined, () => joinRoom([], { env: browser.env }));
  },

  async 'a function names the URL of each try, and one that has none ends the room'() {
    const browser = fakeBrowser();
    const asked = [];
    const room = joinRoom((attempt) => {
      asked.push(attempt);
      if (attempt === 3) throw new Error('no node is left');
      return `wss://node-${attempt}.example/ws/lobby`;
    }, { env: browser.env });
    browser.socket.drops();
    browser.clock.pass(room.status.delay);
    equal(new URL(browser.socket.url).host, 'node-2.example');
    browser.socket.drops();
    equal([asked, room.status.state, room.status.reason], [[1, 2, 3], 'closed', 'no node is left']);
  },

  async 'a connection without a first frame is given up in time'() {
    const { room, browser, socket, clock } = dial();
    socket.open();
    clock.pass(15000);
    equal([room.status.state, room.status.why, socket.closedWith], ['reconnecting', 'timeout', null]);
    clock.pass(500);
    equal(browser.sockets.length, 2);
    browser.socket.open();
    browser.socket.says(state(1, { ann: ['me'] }));
    equal(socket.closedWith.code, 4300);
  },

  async 'a handshake that hangs after a loss is given up within the grace, and the next URL is tried'() {
    const targets = ['wss://a.example/ws/lobby', 'wss://b.example/ws/lobby'];
    const browser = fakeBrowser();
    const room = joinRoom(targets, { env: browser.env });
    browser.clock.pass(14999); // nothing is lost yet, so there is no hurry
    equal([room.status.state, browser.sockets.length], ['connecting', 1]);
    browser.socket.open();
    browser.socket.says(state(1, { ann: ['me'] }));
    browser.socket.drops();
    browser.clock.pass(room.status.delay);
    browser.clock.pass(5000);
    equal(room.status.why, 'timeout');
    browser.clock.pass(room.status.delay);
    equal(new URL(browser.socket.url).host, 'a.example');
    browser.clock.pass(5000);
    browser.socket.open(); // this one has twice the time, and after it that for a first frame
    browser.clock.pass(14999);
    equal(room.status.state, 'reconnecting');
    browser.socket.says(state(3, { ann: ['me'] }));
    equal([room.status.state, browser.sockets.length], ['live', 3]);
  },

  async 'a first frame that takes long gets twice the time at the next try'() {
    const { room, browser, clock } = dial();
    for (const [tries, patience] of [15000, 30000, 60000, 120000, 120000].entries()) {
      browser.socket.open();
      clock.pass(patience - 1);
      equal(browser.sockets.length, tries + 1);
      clock.pass(1);
      equal(room.status.why, 'timeout');
      clock.pass(room.status.delay);
    }
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
    const before = socket.beats;
    browser.env.document.dispatchEvent(new Event('visibilitychange'));
    equal(socket.beats - before, 1);
  },

  async 'a page that goes into the browser\'s cache has its presence held, and one that is reloaded leaves the socket to the browser'() {
    const { browser, socket } = live({ ann: ['me'] });
    const hide = (persisted) => browser.env.window.dispatchEvent(Object.assign(new Event('pagehide'), { persisted }));
    hide(false);
    equal(socket.closedWith, null);
    hide(true);
    equal([socket.closedWith.code, browser.workers[0].stopped, browser.clock.pending], [4300, true, 0]);
  },

  async 'a socket set aside is not left open by a page that goes into the cache'() {
    const { browser, socket } = live({ ann: ['me'] });
    socket.says(diff(7, {}));
    equal(socket.closedWith, null);
    browser.env.window.dispatchEvent(Object.assign(new Event('pagehide'), { persisted: true }));
    equal([socket.closedWith.code, browser.clock.pending], [4300, 0]);
  },

  async 'a page from the browser\'s cache that had left its room stays out of it'() {
    const { browser, room, socket } = live({ ann: ['me'] });
    room.leave();
    browser.env.window.dispatchEvent(Object.assign(new Event('pagehide'), { persisted: true }));
    browser.env.window.dispatchEvent(Object.assign(new Event('pageshow'), { persisted: true }));
    equal([socket.closedWith.code, browser.sockets.length, room.status.state], [4300, 1, 'left']);
    room.join();
    equal(browser.sockets.length, 2);
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
