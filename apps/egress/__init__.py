"""What all exits share: where they let their users go."""
