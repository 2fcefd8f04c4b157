// What the client promises: the heartbeat.

import { joinRoom } from '../presence.js';
import { fakeBrowser } from './fakes.js';
import { dial, live, state, equal, throws } from './helpers.js';

export const tests = {
  async 'a worker beats every third of max_age while the socket is open, and not a moment longer'() {
    const { browser, room, socket, clock } = dial({ maxAge: 60000 });
    equal(browser.workers.length, 0);
    socket.open();
    equal(browser.workers.length, 1);
    browser.workers[0].ticks();
    browser.workers[0].ticks();
    equal(socket.beats, 2);
    socket.says(state(1, { ann: ['me'] }));
    equal(clock.pending, 0);
    socket.drops();
    equal(browser.workers[0].stopped, true);
    clock.pass(500);
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
      equal(socket.beats, 1); // right after the first frame
      clock.pass(9999);
      equal(socket.beats, 1);
      clock.pass(1);
      equal(socket.beats, 2);
      clock.pass(20000);
      equal(socket.beats, 4);
      socket.drops(1008);
      equal(clock.pending, 0);
    }
  },

  async 'whatever max_age is, a beat comes every 20 s, so that silence is found within 30 s'() {
    for (const maxAge of [60000, 600000, 1e15]) {
      const { socket, clock } = dial({ maxAge }, { worker: 'missing' });
      socket.open();
      socket.says(state(1, { ann: ['me'] }));
      clock.pass(200000);
      equal(socket.beats, 11);
    }
  },

  async 'a server that answered a beat once and then falls silent is a lost connection within 30 s'() {
    const { room, browser, socket, clock, told } = live({ ann: ['me'], bob: ['b1'] }, {}, { worker: 'missing' });
    socket.says({ type: 'heartbeat' });
    clock.pass(19999);
    socket.says({ type: 'message', from: 'bob', text: 'the last that comes' });
    clock.pass(8000);
    equal(told, []);
    clock.pass(1);
    equal([told, room.members.size], [['status reconnecting silent'], 2]);
    throws('not_live', () => room.send('is anybody there?'));
    clock.pass(500);
    equal(browser.sockets.length, 2);
    // The old socket is kept until the next has its presence: whatever was silent may speak again, and that is a leave.
    equal(socket.closedWith, null);
    browser.socket.open();
    browser.socket.says(state(3, { ann: ['me'], bob: ['b1'] }));
    equal([socket.closedWith.code, told.at(-1)], [4300, 'sync ann bob']);
  },

  async 'any frame after a beat shows that the server is there'() {
    const { room, socket, clock } = live({ ann: ['me'] }, {}, { worker: 'missing' });
    socket.says({ type: 'heartbeat' });
    for (const frame of ['plain text', { type: 'message', from: null, text: 'x' }, { type: 'heartbeat' }, '7']) {
      clock.pass(20000);
      socket.says(frame);
      clock.pass(0);
    }
    equal([room.status.state, socket.beats], ['live', 5]);
    clock.pass(19999);
    equal(room.status.state, 'live');
  },

  async 'a server that never answers beats is not taken for silent'() {
    const { room, clock } = live({ ann: ['me'] }, {}, { worker: 'missing' });
    clock.pass(3600000);
    equal(room.status.state, 'live');
  },

  async 'a page that stood still does not blame its server'() {
    // The timer for the answer is long overdue while the answer still waits to be read: just after the beat, or at the last moment.
    for (const waited of [0, 6999, 7000, 7999]) {
      const { room, socket, clock, browser } = live({ ann: ['me'] }, {}, { worker: 'missing' });
      socket.says({ type: 'heartbeat' });
      clock.pass(20000 + waited);
      clock.stall(60000);
      equal(room.status.state, 'live');
      socket.says({ type: 'heartbeat' });
      clock.pass(8000);
      equal([room.status.state, browser.sockets.length], ['live', 1]);
    }
  },

  async 'a page that stood still and has no answer after that has lost its connection'() {
    const { room, socket, clock } = live({ ann: ['me'] }, {}, { worker: 'missing' });
    socket.says({ type: 'heartbeat' });
    clock.pass(20000);
    clock.stall(60000);
    clock.pass(8000);
    equal(room.status.why, 'silent');
  },

  async 'a max_age that is none is refused, for it would make a flood, and so is a grace that is none'() {
    const { env } = fakeBrowser();
    for (const maxAge of [0, -1, NaN, null, 'soon']) {
      throws(undefined, () => joinRoom({ room: 'lobby' }, { maxAge, env }));
    }
    joinRoom({ room: 'lobby' }, { maxAge: undefined, grace: undefined, env }); // as if they were not given
    for (const grace of [-1, NaN, 'soon']) throws(undefined, () => joinRoom({ room: 'lobby' }, { grace, env }));
  },

  async 'the source given to a real worker really beats'() {
    if (typeof Worker === 'undefined') return 'skipped: no Worker here';
    const browser = fakeBrowser();
    browser.env.Worker = Worker;
    const room = joinRoom({ room: 'lobby' }, { maxAge: 30, env: browser.env });
    const beat = new Promise((resolve) => { browser.socket.send = resolve; });
    browser.socket.open();
    equal(await beat, '{"type":"heartbeat"}');
    room.close();
    return undefined;
  },
};
