#!/bin/sh
# A node of a standalone cluster, in the foreground: `spark-node master`, or `spark-node worker spark://MASTER:7077`.
set -eu
kind=${1:?master or worker}
shift
case $kind in
master) exec spark-class org.apache.spark.deploy.master.Master --host "$(hostname)" "$@" ;;
worker) exec spark-class org.apache.spark.deploy.worker.Worker "$@" ;;
*)
    echo "spark-node: '$kind' is neither master nor worker" >&2
    exit 2
    ;;
esac
