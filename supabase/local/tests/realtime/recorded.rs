//! One test for each recording, in both protocol versions. DIFFERENCES.md lists those that differ; one that is listed and does not
//! differ fails its test too.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::ledger::listed;
use crate::replay::{play, play_within, recordings};

/// Names a test after what the recording shows.
macro_rules! as_recorded {
    ($($name:ident: $case:literal;)*) => {
        /// The cases that are played as they were recorded.
        const ALIKE: &[&str] = &[$($case),*];

        $(
            mod $name {
                #[tokio::test]
                async fn in_version_1() {
                    super::play("1.0.0", $case).await;
                }

                #[tokio::test]
                async fn in_version_2() {
                    super::play("2.0.0", $case).await;
                }
            }
        )*
    };
}

as_recorded! {
    heartbeats_are_answered: "connect_heartbeat_close";
    a_topic_is_joined_and_left: "join_minimal_and_leave";
    a_join_is_followed_by_presence_state_and_the_verdict: "join_full_reply_system_presence";
    a_second_join_replaces_the_first_and_refs_are_echoed: "join_refs";
    wrong_types_in_a_join_are_defaults_or_refusals: "join_payload_types";
    unknown_topics_and_events_do_no_harm: "topics_unknown";
    malformed_frames_are_ignored: "malformed_frames";
    the_token_of_a_join_is_checked: "auth_join_tokens";
    a_pushed_token_changes_the_claims_or_ends_the_channel: "auth_access_token_push";
    a_token_that_runs_out_ends_its_channel_only: "auth_token_expires_live";
    rows_of_all_types_look_as_recorded: "pg_insert_update_delete_types";
    filters_choose_rows: "pg_filters";
    bad_bindings_are_refused_by_a_system_message: "pg_bad_config";
    bindings_may_name_whole_schemas: "pg_scope_and_duplicates";
    bindings_may_select_columns: "pg_select_columns";
    policies_decide_who_sees_a_row: "pg_rls_visibility";
    a_full_identity_shows_old_rows: "pg_replica_identity_full";
    missing_grants_and_keys_are_errors: "pg_errors_no_grant_no_pk";
    broadcasts_reach_the_others_and_the_limits_of_size_hold: "broadcast_text";
    binary_broadcasts_reach_both_versions: "broadcast_binary";
    broadcasts_over_http_are_delivered_or_refused: "broadcast_rest";
    messages_of_the_database_are_delivered: "broadcast_from_database";
    messages_of_the_past_are_replayed: "replay";
    policies_decide_who_hears_and_speaks: "private_channels";
    members_come_and_go: "presence";
    presence_calls_are_checked_and_counted: "presence_errors_limits";
    channels_of_a_socket_are_limited: "limit_channels_per_client";
    users_are_limited: "limit_concurrent_users";
    payloads_are_limited: "limit_payload_size";
    a_project_may_allow_private_channels_only: "tenant_private_only";
    a_reload_disconnects_all: "server_requested_disconnect";
    a_silent_socket_is_closed: "no_heartbeat";
    a_stopped_server_closes_and_refuses: "server_shutdown";
    a_crashed_channel_says_so: "channel_crash";
    large_rows_are_cut_short: "pg_payload_too_large";
    compression_is_not_spoken: "compression_offer";
    keys_paths_and_hosts_are_checked: "connect_refused";
    too_many_joins_a_second_close_the_socket: "limit_joins_per_second";
    too_many_messages_a_second_close_their_channel: "limit_events_per_second";
    a_suspended_project_refuses_all: "tenant_suspended";
    rows_of_a_failover_are_lost_and_later_ones_arrive: "postgres_cdc_restart";
}

/// How long a frame is waited for that will probably not come.
const IMPATIENCE: Duration = Duration::from_secs(3);

/// Cases that are played as recorded in one version only, and in which.
const ALIKE_ONCE: &[(&str, &str)] = &[("2.0.0", "database_down")];

/// What is played differently.
const OTHERWISE: &[(&str, &str)] =
    &[("1.0.0", "database_down"), ("1.0.0", "pg_gap_before_system"), ("2.0.0", "pg_gap_before_system")];

#[tokio::test]
async fn a_database_that_is_down_ends_no_socket_and_subscriptions_wait_for_it() {
    for (version, case) in ALIKE_ONCE {
        play(version, case).await;
    }
}

#[tokio::test]
async fn what_is_listed_as_different_is_different() {
    for (version, case) in OTHERWISE {
        let played = tokio::spawn(play_within(version, case, IMPATIENCE)).await;
        assert!(played.is_err(), "{version}/{case} is played as recorded now: take it off DIFFERENCES.md");
    }
}

#[test]
fn each_recording_is_played_alike_or_listed_with_its_reason() {
    let named = |(version, case): &(&str, &str)| format!("{version}/{case}");
    let otherwise: BTreeSet<String> = OTHERWISE.iter().map(named).collect();
    let alike: BTreeSet<String> = ["1.0.0", "2.0.0"]
        .iter()
        .flat_map(|version| ALIKE.iter().map(move |case| (*version, *case)))
        .chain(ALIKE_ONCE.iter().copied())
        .map(|played| named(&played))
        .collect();
    let all: BTreeSet<String> = recordings().into_iter().collect();
    let listed: BTreeSet<String> = listed("realtime").into_keys().collect();
    assert_eq!(listed, otherwise, "DIFFERENCES.md lists what differs");
    assert_eq!(
        alike.union(&otherwise).cloned().collect::<BTreeSet<_>>(),
        all,
        "each recording has its place"
    );
    assert!(alike.is_disjoint(&otherwise), "no recording has two places");
    let (part, whole) = (alike.len(), all.len());
    println!("{part} of {whole} transcripts are played as recorded: {} %", 100 * part / whole);
    assert!(20 * part >= 19 * whole, "19 of 20 are");
}
