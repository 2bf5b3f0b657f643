// Reads {bundles: [{name, text, pems}], schema, predicates: [...]} from stdin and writes {signatures: {name: null | "why not"},
// predicates: [true | false]}: what Sigstore's own client and a JSON Schema validator say.

import { createPublicKey } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { bundleFromJSON } from '@sigstore/bundle';
import { Verifier, toSignedEntity } from '@sigstore/verify';
import Ajv from 'ajv/dist/2020.js';

const input = JSON.parse(readFileSync(0, 'utf-8'));

function refusal(text, pems) {
  let entity;
  try {
    entity = toSignedEntity(bundleFromJSON(JSON.parse(text)));
  } catch (error) {
    return `bundle: ${error.message}`;
  }
  let reason = 'no key';
  for (const pem of pems) {
    const material = {
      certificateAuthorities: [],
      timestampAuthorities: [],
      tlogs: [],
      ctlogs: [],
      publicKey: () => ({ publicKey: createPublicKey(pem), validFor: () => true }),
    };
    // An artifact is in no log: keys alone are asked.
    const verifier = new Verifier(material, { tlogThreshold: 0, ctlogThreshold: 0, timestampThreshold: 0 });
    try {
      verifier.verify(entity);
      return null;
    } catch (error) {
      reason = `signature: ${error.message}`;
    }
  }
  return reason;
}

const validate = new Ajv.default({ strict: true, allowUnionTypes: true }).compile(input.schema);
process.stdout.write(
  JSON.stringify({
    signatures: Object.fromEntries(input.bundles.map(({ name, text, pems }) => [name, refusal(text, pems)])),
    predicates: input.predicates.map((predicate) => validate(predicate)),
  }),
);
