#!/usr/bin/env bash
# Labels a folder in BEIR's layout and evaluates a TREC run of your own with the new qrels.
#
#   examples/label_beir.sh FOLDER RUN [COLLECTION]
#
# FOLDER holds corpus.jsonl and queries.jsonl. COLLECTION is the folder's name unless you give another. A second call
# continues where the first one stopped.
set -euo pipefail

folder=$1 run=$2
collection=${3:-$(basename "$folder")}

qrelay index build "$folder" --collection "$collection"
qrelay up --detach
trap 'qrelay down' EXIT

qrelay feed "$folder/queries.jsonl" --collection "$collection" --wait
qrelay export qrels --by document --collection "$collection" --out "$collection.qrels"
qrelay eval --corpus "$folder" --qrels "$collection.qrels" --run "$run"
