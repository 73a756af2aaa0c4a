// The codec that Label Studio's browser uses, for the tests: a request in JSON a line, and its bytes a line.
import { createInterface } from "node:readline";
import { decode, encode } from "@thi.ng/rle-pack";

for await (const line of createInterface({ input: process.stdin })) {
  const { call, bytes, countBits } = JSON.parse(line);
  const answer = call === "encode" ? encode(bytes, bytes.length, 8, countBits) : decode(bytes);
  console.log(JSON.stringify(Array.from(answer)));
}
