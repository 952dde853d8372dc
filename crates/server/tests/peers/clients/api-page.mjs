// Opens the API page in a browser and sends every operation with the values that the page fills in.
//
//   node api-page.mjs URL KEY [FOLDER]
//
// Prints one JSON object per line for each operation of the page: `id`, `sent` (the requests that
// the page sent, with method, path and status of the response; a POST is sent twice), and `fault`
// if the operation could not be sent. The last line is `null`. Screenshots are stored in FOLDER.
// Packages are resolved through the working directory.
import { createRequire } from "node:module";
import { join } from "node:path";

const { chromium } = createRequire(join(process.cwd(), "package.json"))("playwright-core");
const [url, key, folder] = process.argv.slice(2);
const print = (line) => console.log(JSON.stringify(line));

// Longest wait for anything on the page.
const WAIT_MS = 30_000;
const FILE = { name: "hello.txt", mimeType: "text/plain", buffer: Buffer.from("hello\n") };

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
});
const page = await browser.newPage({ viewport: { width: 1280, height: 1000 }, reducedMotion: "reduce" });
page.setDefaultTimeout(WAIT_MS);
// The page must not need another host: a request to one is blocked and fails the test.
await page.route((target) => !target.href.startsWith(url) && target.protocol !== "data:", (route) => route.abort());
const troubles = [];
page.on("pageerror", (error) => troubles.push(`error on the page: ${error.message}`));

const shot = async (name, target = page) => folder && target.screenshot({ path: join(folder, `${name}.png`) });

// Open the page and enter a key.
await page.goto(`${url}/api/v3/docs`);
await page.locator(".opblock").first().waitFor();
await shot("page");
await page.locator(".btn.authorize").first().click();
const form = page.locator(".auth-container", { hasText: "X-API-Key" });
await form.locator("input").fill(key);
await form.locator("button", { hasText: "Authorize" }).click();
await shot("authorize");
await page.locator(".modal-ux .close-modal").click();

// Clicks Execute and returns the request that the page sent.
async function execute(block) {
  const request = page.waitForRequest((sent) => sent.resourceType() === "fetch", { timeout: WAIT_MS });
  const refused = block.locator(".validation-errors, input.invalid, textarea.invalid, .errors-wrapper").first();
  const failure = refused.waitFor({ timeout: WAIT_MS }).then(() => null);
  await block.locator(".btn.execute").click();
  const sent = await Promise.race([request, failure]);
  Promise.allSettled([request, failure]);
  if (!sent) throw new Error("the page refused to send the values that it had filled in");
  const answer = await sent.response();
  await block.locator(".live-responses-table").waitFor();
  return { method: sent.method(), path: new URL(sent.url()).pathname, status: answer?.status() ?? 0 };
}

for (const tag of await page.locator(".opblock-tag-section").all()) {
  for (const block of await tag.locator(".opblock").all()) {
    const id = (await block.getAttribute("id")).split("-").at(-1);
    const sent = [];
    let fault;
    try {
      await block.locator(".opblock-summary-control").click();
      await block.locator(".opblock-body").waitFor();
      const button = block.locator(".try-out__btn:not(.cancel)");
      if (await button.count()) await button.click();
      await block.locator(".btn.execute").waitFor();
      // A list of files can be empty initially.
      const files = block.locator("input[type=file]");
      const more = block.locator(".json-schema-form-item-add");
      if ((await more.count()) && !(await files.count())) await more.first().click();
      for (const input of await files.all()) await input.setInputFiles(FILE);
      await shot(`${id}-form`, block);
      sent.push(await execute(block));
      if (sent[0].method === "POST") sent.push(await execute(block));
      await shot(id, block);
    } catch (error) {
      fault = String(error.message ?? error).split("\n")[0];
      await shot(`${id}-fault`);
    }
    print({ id, sent, fault });
    // Close it, so that the page renders less.
    await block.locator(".opblock-summary-control").click();
  }
}
for (const trouble of troubles) print({ id: "page", sent: [], fault: trouble });
await browser.close();
print(null);
