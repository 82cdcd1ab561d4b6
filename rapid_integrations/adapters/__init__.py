"""What the integrations for both frameworks share: fields, arguments, the hold on an engine, and how it travels."""
