import { deepStrictEqual, strictEqual } from 'node:assert/strict'
import { readKey } from './key.ts'

const secret = 'z'.repeat(40) + '123'

Deno.test('a key contains the id of its cluster, and reaches the database as its hash', async () => {
  // printf tdl_…123 | sha256sum
  deepStrictEqual(await readKey(`tdl_${'0'.repeat(21)}1${secret}`), {
    clusterId: '00000000-0000-0000-0000-000000000001',
    hash: '13d8e8735742c7cbe4504b89764aadc36ecf471d5b5ff4be9f27a70f0aa6f5eb',
  })
})

Deno.test('the greatest cluster id is the last one', async () => {
  strictEqual((await readKey(`tdl_7n42DGM5Tflk9n8mt7Fhc7${secret}`))?.clusterId, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
  strictEqual(await readKey(`tdl_7n42DGM5Tflk9n8mt7Fhc8${secret}`), null)
})

for (
  const text of [
    '',
    'tdl_',
    `tdl_${'0'.repeat(64)}`,
    `tdl_${'0'.repeat(66)}`,
    `tdl_${'0'.repeat(64)}-`,
    `TDL_${'0'.repeat(65)}`,
    'eyJhbGciOiJI',
  ]
) {
  Deno.test(`${JSON.stringify(text)} is no key`, async () => strictEqual(await readKey(text), null))
}
