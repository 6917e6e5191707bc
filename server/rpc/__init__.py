"""The gRPC door: convert, delegate, convert back."""
