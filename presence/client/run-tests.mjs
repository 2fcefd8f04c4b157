// Runs the client's tests where it finds itself: `node run-tests.mjs [words of a name]`, or in test.html. There
// #result then holds {"passed":N,"failed":[{"name","error"}],"skipped":[…]}, the title "passed N" or "failed N".

import * as calls from './tests/calls.js';
import * as connection from './tests/connection.js';
import * as heart from './tests/heart.js';
import * as parts from './tests/parts.js';
import * as retry from './tests/retry.js';
import * as rooms from './tests/rooms.js';
import * as roster from './tests/roster.js';
import * as token from './tests/token.js';
import * as values from './tests/values.js';

const modules = [calls, connection, heart, parts, retry, rooms, roster, token, values];
const tests = Object.assign({}, ...modules.map((module) => module.tests));

async function run(filter) {
  const result = { passed: 0, failed: [], skipped: [] };
  for (const [name, test] of Object.entries(tests)) {
    if (!name.includes(filter)) continue;
    try {
      const skipped = await test();
      if (skipped) result.skipped.push(`${name} (${skipped})`);
      else result.passed += 1;
    } catch (error) {
      result.failed.push({ name, error: String(error.stack ?? error) });
    }
  }
  return result;
}

if (typeof document === 'undefined') {
  const { passed, failed, skipped } = await run(process.argv.slice(2).join(' '));
  for (const { name, error } of failed) console.error(`FAILED  ${name}\n${error}\n`);
  for (const name of skipped) console.log(`skipped  ${name}`);
  console.log(`${passed} passed, ${failed.length} failed, ${skipped.length} skipped`);
  process.exitCode = failed.length || !passed ? 1 : 0;
} else {
  const result = await run('');
  document.getElementById('result').textContent = JSON.stringify(result, null, 2);
  document.title = result.failed.length ? `failed ${result.failed.length}` : `passed ${result.passed}`;
}
