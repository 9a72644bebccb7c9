#!/bin/sh
# Stands in for a C compiler. Triton asks one for a single module, which was compiled when the image was made:
# it is copied to where the output would go. Everything else is refused.
case $1 in
*/triton/backends/nvidia/driver.c) ;;
*)
    echo "This image has no C compiler; it has Triton's module for NVIDIA's driver alone, not $1." >&2
    exit 1
    ;;
esac
while [ "$1" != -o ]; do shift; done
exec cp /opt/triton/cuda_utils.so "$2"
