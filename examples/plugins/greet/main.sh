#!/bin/sh
set -eu
echo "Hello, $PLUGIN_NAME."
echo "greeted=$PLUGIN_NAME" >> "$MUSTER_OUTPUT"
