#!/usr/bin/env bash
# Say in one line what did not run where the sample data from elsewhere is missing (it is never committed).
set -euo pipefail
samples=${OBHUT_SAMPLES:-../shared/data}
if [ ! -f "$samples/pagila/pagila-schema.sql" ]; then
  echo "make test: the Pagila journeys do not run: no $samples/pagila; it is xzilla/pagila 17.a and set OBHUT_SAMPLES to its parent folder"
fi
