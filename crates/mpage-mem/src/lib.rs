//! Page frames for mpage: one arena, pins, sound racing copies.
