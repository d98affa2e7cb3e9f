// client.cjs NODE_MODULES PORT - OpenAI's Node client against a tlr serve with
// the tiny model: basics, a stream, errors.  Prints ok.
const assert = require("node:assert");
const [modules, port] = process.argv.slice(2);
const OpenAI = require(modules + "/openai").default;

async function main() {
  const client = new OpenAI({baseURL: `http://127.0.0.1:${port}/v1`, apiKey: "none", maxRetries: 0});
  const ask = {model: "tiny", messages: [{role: "user", content: "Hi"}], temperature: 0, max_tokens: 8, ignore_eos: true};

  const models = await client.models.list();
  assert.deepStrictEqual(models.data.map(m => m.id), ["tiny"]);
  const whole = await client.chat.completions.create(ask);
  assert.strictEqual(whole.usage.completion_tokens, 8);
  assert.strictEqual(whole.choices[0].finish_reason, "length");

  let text = "", last;
  for await (const chunk of await client.chat.completions.create({...ask, stream: true})) {
    text += chunk.choices[0].delta.content ?? "";
    last = chunk.choices[0].finish_reason;
  }
  assert.strictEqual(text, whole.choices[0].message.content);
  assert.strictEqual(last, "length");

  await assert.rejects(client.chat.completions.create({...ask, messages: []}),
                       e => e instanceof OpenAI.BadRequestError && e.param === "messages");
  await assert.rejects(client.models.retrieve("other"), OpenAI.NotFoundError);
  console.log("ok");
}

main().catch(e => { console.error(e); process.exit(1); });
