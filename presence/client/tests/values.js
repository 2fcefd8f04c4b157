// What the client promises: nothing that a listener does to what it gets changes what the room knows.

import { live, diff, state, equal } from './helpers.js';

/** Tries to spoil a member, or a frame; what throws counts as refused. */
function spoil(value) {
  const attempts = [
    () => value.presences.clear(), () => value.presences.delete('b1'), () => value.presences.set('evil', {}),
    () => { value.user = 'evil'; }, () => { value.presences = new Map(); },
    ...[...(value.presences?.values() ?? [])].flatMap((meta) => [
      () => { meta.status = 'evil'; }, () => { delete meta.status; }, () => { meta.deep.list.push('evil'); },
    ]),
  ];
  for (const attempt of attempts) { try { attempt(); } catch { /* as it should be */ } }
}

const meta = { status: 'busy', deep: { list: [1] } };
const rosterOf = ({ members }) => [...members].map(([user, { presences }]) => [user, [...presences]]);

export const tests = {
  async 'a listener that spoils the member it gets spoils nothing for the others or for the roster'() {
    for (const event of ['join', 'update', 'leave', 'sync']) {
      const { room, socket } = live({ ann: ['me'] });
      room.on(event, (value, old) => [value, old, ...room.members.values()].forEach((one) => one && spoil(one)));
      socket.says(diff(1, { joins: [['bob', 'b1', meta]] }));
      socket.says(diff(2, { joins: [['bob', 'b2', {}]] }));
      equal(rosterOf(room), [['ann', [['me', {}]]], ['bob', [['b1', meta], ['b2', {}]]]]);
      const told = [];
      room.on('leave', ({ user, presences }) => told.push([user, [...presences.keys()]]));
      socket.says(diff(3, { leaves: [['bob', 'b1'], ['bob', 'b2']] }));
      equal([told, [...room.members.keys()]], [[['bob', ['b1', 'b2']]], ['ann']]);
    }
  },

  async 'members cannot be changed by the page'() {
    const { room, socket } = live({ ann: ['me'], bob: ['b1'] });
    const { members } = room;
    for (const change of [() => members.clear(), () => members.delete('bob'), () => members.set('evil', {})]) {
      let refused = false;
      try { change(); } catch (error) { refused = error instanceof TypeError; }
      equal(refused, true);
    }
    socket.says(state(2, { ann: ['me'], bob: ['b1'] }));
    equal([members instanceof Map, members.size, [...members.keys()]], [true, 2, ['ann', 'bob']]);
    equal(new Map(members).delete('bob'), true); // a copy is the page's own
  },

  async 'a member stays as it was when its user changes'() {
    const { room, socket } = live({ ann: ['me'], bob: ['b1'] });
    const bob = room.get('bob');
    socket.says(diff(1, { updates: [['bob', 'b1', meta]] }));
    equal([[...bob.presences], [...room.get('bob').presences]], [[['b1', {}]], [['b1', meta]]]);
    const same = room.get('bob');
    socket.says(diff(2, { joins: [['cyd', 'c1']] }));
    equal(room.get('bob') === same, true);
  },

  async 'a frame that is nested deeper than any stack is handed on like any other'() {
    const { room, socket } = live({ ann: ['me'] });
    let depth = 0;
    room.on('frame', ({ deep }) => { for (let one = deep; one.length > 0; [one] = one) depth += 1; });
    socket.says(`{"type":"score","deep":${'['.repeat(30000)}${']'.repeat(30000)}}`);
    equal([depth, room.status.state], [29999, 'live']);
  },

  async 'messages, the application\'s own frames and statuses are frozen, with all that is in them'() {
    const { room, socket } = live({ ann: ['me'] });
    const heard = [];
    for (const event of ['message', 'frame', 'status']) room.on(event, (value) => heard.push(value));
    socket.says({ type: 'message', from: 'bob', text: 'x', deep: { list: [1] } });
    socket.says({ type: 'score', deep: { list: [1] } });
    socket.drops();
    equal(heard.map((value) => [Object.isFrozen(value), Object.isFrozen(value.deep?.list ?? value)]), Array(3).fill([true, true]));
  },
};
