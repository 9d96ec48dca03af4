"""A sample vendor and the whole story on it: Kursblick, a course-booking SaaS, loses its database the day after it erased a person.

Plays by the use cases that the command line calls and shows each command beside it. Never touches anything outside the one folder it
names, holds no real person (names from word lists, reserved mail domains and addresses), and leaves nothing running.
"""
