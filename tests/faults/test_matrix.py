"""The fault matrix: for each row the tests that hold it.

 1  kill -9 at random times
        faults/test_kill.py: test_killed_at_random, test_killed_a_hundred_times
        faults/test_mix.py: test_a_bad_night, test_a_long_bad_night
 2  kill -9 at each durable step
        faults/test_kill.py: test_killed_at_durable_steps, test_killed_at_each_durable_step
 3  a power cut while journaling
        faults/test_storage_power_cut.py: test_what_the_journal_acknowledged_is_there, test_the_power_is_cut
        properties/test_journal_machine.py: TestJournal
 4  a power cut around the publishing of a part
        faults/test_storage_power_cut.py: test_the_power_is_cut
 5  a sync that fails once
        faults/test_storage_errors.py: test_a_sync_fails_once
 6  syncs that fail for ever
        faults/test_storage_errors.py: test_the_journal_cannot_be_synced_any_more, test_nothing_can_be_synced_any_more
        faults/test_storage_errors.py: test_nothing_beside_the_journal_can_be_synced_either
 7  a write without room, once and for ever
        faults/test_storage_errors.py: test_the_disk_is_full_for_one_write, test_the_disk_stays_full
        faults/test_storage_errors.py: test_a_file_beside_the_journal_cannot_be_written
 8  a real disk that fills up, and gets room
        faults/test_storage_full.py: test_a_disk_that_stays_full, test_a_disk_that_gets_room_while_the_run_waits
        faults/test_storage_full.py: test_a_disk_without_room_for_the_reserve
 9  files that may not grow
        faults/test_storage_full.py: test_files_may_not_grow
10  no file descriptors
        faults/test_network.py: test_fewer_descriptors_than_requests
        faults/test_storage_full.py: test_hardly_any_file_may_be_opened
        faults/client/test_connecting.py: test_a_process_without_descriptors_says_so_and_recovers
11  little memory; ten times as many rows rather than a million, since a million take minutes
        faults/test_large_rows.py: test_memory_does_not_grow_with_the_number_of_small_rows
        faults/test_large_rows.py: test_memory_does_not_grow_with_the_number_of_large_rows
12  a torn or damaged journal
        faults/test_storage_damage.py: test_a_damaged_journal
13  a part that is damaged or gone
        faults/test_storage_damage.py: test_a_damaged_part
        unit/test_rundir.py: test_a_finished_part_is_gone
14  a server that is silent
        faults/test_broken_http.py: test_every_broken_answer_once, test_every_broken_answer_for_ever
        faults/client/test_conformance.py: test_a_silent_server_is_given_up
15  blank lines before the answer, and for ever
        faults/test_broken_http.py: test_every_broken_answer_once, test_every_broken_answer_for_ever
        faults/client/test_conformance.py: test_keep_alive_lines_for_ever_are_not_content
16  event streams: comments, cut, without an end, with an error
        faults/test_broken_http.py: test_every_broken_answer_once, test_every_broken_answer_for_ever
17  bodies cut short in three framings
        faults/test_broken_http.py: test_every_broken_answer_once, test_every_broken_answer_for_ever
        faults/client/test_conformance.py: test_a_response_cut_by_the_servers_close_is_a_fault_with_what_arrived
18  connections closed or reset before, during and after the headers
        faults/test_broken_http.py: test_every_broken_answer_once
        faults/client/test_conformance.py: test_a_reset_at_any_stage_is_a_broken_connection
19  idle connections closed at the time of their reuse
        faults/test_network.py: test_connections_closed_at_the_very_time_of_reuse
        faults/client/test_conformance.py: test_a_reused_connection_that_closes_without_a_byte_is_stale
20  429 with every kind of Retry-After
        faults/test_load.py: test_every_way_to_ask_for_a_wait, test_a_wait_of_a_day
        unit/test_retry_after.py: test_the_servers_wait_is_understood, test_a_wait_that_makes_no_sense_is_no_wait
21  no money left
        faults/test_account.py: test_no_money_left
22  an outage of hours, in a hundredth of the time
        faults/test_outage.py: test_outages_in_the_middle
        faults/test_run_level.py: test_outage_longer_than_allowed, test_broken_from_the_start
        faults/test_run_level.py: test_short_outage_in_the_middle
        unit/test_limits.py: test_an_outage_is_probed_one_request_at_a_time_ever_less_often
23  a brown-out
        faults/test_load.py: test_a_brown_out
24  a key that is refused in the middle
        faults/test_account.py: test_a_key_that_is_exchanged, test_a_key_that_stays_wrong
        faults/test_run_level.py: test_refused_from_the_middle_on
25  every row refused, or one
        faults/test_run_level.py: test_every_row_refused_with_400, test_refused_from_the_start, test_one_row_is_refused
        faults/test_run_level.py: test_every_row_refused_by_an_endpoint_that_has_worked_before
26  answers that are none, or cannot be stored as they are
        faults/test_broken_http.py: test_every_broken_answer_once, test_every_broken_answer_for_ever
        faults/test_run_level.py: test_refused_from_the_start, test_one_row_is_refused
27  slots that are taken away and come back; a real server would need minutes for what a model shows in seconds
        unit/test_limits_against_servers.py: test_slots_that_are_taken_away_and_come_back_are_followed
        unit/test_limits_quick_answers.py: test_three_of_four_slots_are_taken_away
28  two runs of one job
        acceptance/test_run.py: test_second_run_on_the_same_folder
        unit/test_rundir.py: test_another_process_works_on_it
29  signals, and closed pipes
        faults/test_signals.py: test_first_signal_finishes_what_is_in_flight, test_second_signal_leaves_at_once
        faults/test_signals.py: test_answers_that_take_longer_than_the_grace, test_signal_while_everything_waits
        faults/test_signals.py: test_reader_of_the_output_leaves_early, test_report_cut_off_by_head
        faults/test_signals.py: test_a_hangup_that_was_to_be_ignored
30  a frozen process, a clock that jumps
        faults/test_time.py: test_frozen_for_longer_than_a_request_may_take, test_the_clock_is_set_by_a_day
        faults/test_signals.py: test_stopped_and_continued
31  no network, no name, no valid certificate
        faults/test_network.py: test_the_network_vanishes, test_a_name_that_does_not_resolve
        faults/test_network.py: test_certificates_that_are_not_accepted
        faults/client/test_tls.py: test_a_wrong_certificate_is_refused_before_anything_is_sent
32  another input or job, an older or newer journal; no released version has another schema to migrate from
        acceptance/test_errors.py: test_changed_input_on_resume, test_changed_job_on_resume
        faults/test_run_level.py: test_a_folder_of_another_version
        unit/test_rundir.py: test_a_changed_job, test_a_manifest_that_is_not_ours
33  exceptions nobody foresaw
        faults/test_exceptions.py: test_a_client_that_raises, test_a_thread_that_raises
34  everything, for a day: `SOAK_S=86400 pytest -m soak`
        faults/test_soak.py: test_soak
"""

from __future__ import annotations

from tests.named import check_table

ROWS = 34


def test_every_row_names_tests_that_exist() -> None:
    """A row of the table is held by tests, and a test that is renamed or dropped is missed here."""
    check_table(__doc__ or "", ROWS)
