// What the client promises: when it comes back, by the close code, the time since the loss, and chance.

import { Retry } from '../presence/retry.js';
import { equal } from './helpers.js';

const DEFAULTS = { minDelay: 500, maxDelay: 30000, grace: 10000 };
const refused = { code: 1006, why: 'lost', opened: false, online: true };
const ended = (code) => ({ code, why: 'lost', opened: true, online: true });

/** A connection that was live for a minute. */
function lived(options = {}) {
  const retry = new Retry({ ...DEFAULTS, ...options });
  retry.live(0);
  return retry;
}

/** The delays of tries that all fail at once, from a loss at 60 s on, until `time` later. */
function delays(retry, loss, time, chance) {
  const found = [];
  let now = 60000;
  let { delay } = retry.lost(loss, now, chance);
  while (now + delay <= 60000 + time) {
    found.push(delay);
    now += delay;
    ({ delay } = retry.lost(refused, now, chance));
  }
  return found;
}

export const tests = {
  async 'while the presence may be held a page is never more than two seconds from its next try'() {
    for (const chance of [0, 0.5, 1]) {
      for (const code of [1006, 1011, 1012, 1013, 4408, undefined]) {
        const found = delays(lived(), ended(code), 30000, chance);
        equal(Math.max(...found) <= 2000, true);
        equal(found.slice(1).every((delay) => delay >= 500), true); // browsers punish a dozen refused connects in a row
        equal(found.length <= 33, true);
      }
    }
  },

  async 'the delay is random between half of a ceiling and all of it'() {
    equal(delays(lived(), ended(1006), 8000, 1), [500, 1000, 2000, 2000, 2000]);
    equal(delays(lived(), ended(1006), 5000, 0), [250, 500, 1000, 1000, 1000, 1000]);
  },

  async 'the ceiling is a fifth of the grace, and never under minDelay or over maxDelay'() {
    const most = (options) => Math.max(...delays(lived(options), ended(1006), 7500, 1));
    equal([most({ grace: 20000 }), most({ grace: 5000 }), most({ grace: 2001 })], [4000, 1000, 500]);
    equal(most({ grace: 100000, maxDelay: 1500 }), 1500);
  },

  async 'once three graces have passed since the loss the delay doubles up to maxDelay'() {
    const found = delays(lived(), ended(1006), 200000, 1);
    const later = found.slice(found.lastIndexOf(2000) + 1);
    equal(later.slice(0, 5), [4000, 8000, 16000, 30000, 30000]);
    equal(found.indexOf(4000) > 15, true);
  },

  async 'a page that was never live has no presence to lose, and backs off from its first try on'() {
    const retry = new Retry(DEFAULTS);
    const found = Array.from({ length: 9 }, () => retry.lost(refused, 0, 1).delay);
    equal(found, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
    equal(delays(lived({ grace: 0 }), ended(1006), 63000, 1), [500, 1000, 2000, 4000, 8000, 16000, 30000]);
  },

  async 'pages come back to a restarting server spread over two seconds, or over a fifth of a shorter grace'() {
    const delay = (options, chance) => lived(options).lost(ended(1012), 60000, chance).delay;
    equal([delay({}, 0), delay({}, 0.5), delay({}, 1)], [0, 1000, 2000]);
    equal([delay({ grace: 60000 }, 1), delay({ grace: 4000 }, 1), delay({ grace: 0 }, 1)], [2000, 800, 2000]);
  },

  async 'come back later is at least a second, and backs off without regard to the grace'() {
    for (const code of [4100, 4199]) {
      equal([0, 1].map((chance) => lived().lost(ended(code), 60000, chance).delay), [1000, 2000]);
      equal(delays(lived(), ended(code), 63000, 1).slice(1), [1000, 2000, 4000, 8000, 16000, 30000]);
    }
  },

  async 'come back now is at once, with a little chance, and not in a hot loop'() {
    for (const code of [4200, 4299]) {
      const retry = lived();
      equal(retry.lost(ended(code), 60000, 1).delay, 250);
      retry.live(60250);
      equal(retry.lost(ended(code), 60251, 1).delay >= 1000, true);
    }
    equal(lived().lost(ended(4200), 60000, 0).delay, 0);
  },

  async 'a connection that dies young does not reset the back-off, one that lived does'() {
    const retry = new Retry(DEFAULTS);
    const found = [];
    let now = 0;
    for (const life of [0, 9999, 9999, 10000]) {
      retry.live(now);
      now += life;
      const { attempt, delay } = retry.lost(ended(1011), now, 1);
      found.push([attempt, delay]);
      now += delay;
    }
    equal(found, [[1, 500], [2, 1000], [3, 2000], [1, 500]]);
  },

  async 'a page that was live is not called refused as long as its server may be restarting'() {
    const retry = lived();
    const at = (now) => retry.lost(refused, now, 1).refused;
    equal([at(60000), at(62000), at(64000), at(66000), at(89999), at(90000)], [false, false, false, false, false, true]);
  },
};
