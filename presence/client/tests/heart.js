// What the client promises: the heartbeat.

import { joinRoom } from '../presence.js';
import { fakeBrowser } from './fakes.js';
import { dial, state, equal, throws } from './helpers.js';

export const tests = {
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
};
