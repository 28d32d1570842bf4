#!/usr/bin/env bash
# Measures the judge against people, and exports training data if it qualifies.
#
#   examples/qualify_judge.sh COLLECTION [RELEVANT_FROM]
#
# The first call draws 50 pairs into slice.tsv. Fill in the column `grade` with whole numbers, 0 to 3 say, and call it
# again. RELEVANT_FROM is the least grade that you call relevant (2). The export is refused where the judge fell short.
set -euo pipefail

collection=$1 relevant_from=${2:-2}

if [ ! -e slice.tsv ]; then
    qrelay up --detach
    trap 'qrelay down' EXIT
    qrelay judge slice --collection "$collection" --n 50 --out slice.tsv
    echo "Fill in the column grade of slice.tsv, then run this again."
    exit
fi

qrelay judge qualify --slice slice.tsv --relevant-from "$relevant_from" --out qualification.json --report report
export QRELAY_SINK__QUALIFICATION=qualification.json # or: sink: {qualification: qualification.json} in qrelay.yaml
qrelay export triples --collection "$collection" --out "$collection-triples.jsonl"
