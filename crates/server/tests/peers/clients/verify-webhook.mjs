// Verifies webhook requests with the npm package standardwebhooks. Each line of the input is a request as JSON, with the
// secret and the number of seconds by which the clock is ahead. Each line of the output is `verified TYPE` or `rejected REASON`.

import { createInterface } from "node:readline";
import { Webhook } from "standardwebhooks";

const now = Date.now;
for await (const line of createInterface({ input: process.stdin })) {
  const { secret, headers, body, aheadSeconds } = JSON.parse(line);
  Date.now = () => now() + aheadSeconds * 1000;
  try {
    console.log("verified", new Webhook(secret).verify(body, headers).type);
  } catch (error) {
    console.log("rejected", error.message);
  }
}
