"""`python -m harness.image build|seal`, for the Makefile and the Dockerfile."""

from harness.image.build import main

main()
