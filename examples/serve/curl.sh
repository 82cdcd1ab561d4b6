#!/bin/sh
# Ask `rapid serve` about a document with curl: upload it, ask with a stream of events, delete it.
#
#     rapid serve --quantization int4        # in another terminal
#     sh examples/serve/curl.sh
set -eu
url=${RAPID_URL:-http://127.0.0.1:8000/v1}
key=${RAPID_API_KEY:-none}
model=${RAPID_MODEL:-smollm2-135m-instruct}
folder=$(dirname "$0")

file=$(curl -sf "$url/files" -H "Authorization: Bearer $key" -F purpose=assistants -F "file=@$folder/../handbook.md" |
    sed 's/.*"id":"\(file-[0-9a-f]*\)".*/\1/')

curl -sfN "$url/chat/completions" -H "Authorization: Bearer $key" -H "Content-Type: application/json" -d '{
    "model": "'"$model"'", "stream": true, "max_tokens": 64,
    "messages": [{"role": "user", "content": "What percentage of gross salary does the company pay into the pension?"}],
    "rapid": {"documents": [{"file_id": "'"$file"'"}], "statistics": true}
}'

curl -sf -X DELETE "$url/files/$file" -H "Authorization: Bearer $key"
