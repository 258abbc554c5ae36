//! Manifests that a stranger writes to cost time or memory, each within the 4 MiB that are read at all.

const MIB: usize = 1 << 20;
const MOST: usize = 4 * MIB;

/// Name and text of each.
pub fn manifests() -> Vec<(&'static str, String)> {
    let service = "services:\n  a:\n    image: builtin:hello\n";
    let lines = |count: usize, line: &dyn Fn(usize) -> String| (0..count).map(line).collect::<String>();
    let fill = |start: &str, piece: &str, end: &str| {
        let count = (MOST - start.len() - end.len()) / piece.len();
        format!("{start}{}{end}", piece.repeat(count))
    };
    let bomb: String = lines(20, &|level| {
        let alias = ["x".to_owned(), format!("*a{}", level.saturating_sub(1))];
        let item = &alias[usize::from(level > 0)];
        format!("a{level}: &a{level} [{}]\n", [item.as_str(); 9].join(","))
    });
    let list: String = lines(2_000, &|n| format!("'{n}',"));
    vec![
        ("4 MiB of services", {
            let services = lines(60_000, &|n| {
                format!("  s{n}: {{ image: 'builtin:hello', environment: {{ A: '{n}' }} }}\n")
            });
            format!("services:\n{services}").chars().take(MOST).collect()
        }),
        (
            "20,000 services",
            format!(
                "services:\n{}",
                lines(20_000, &|n| format!("  s{n}: {{ image: x }}\n"))
            ),
        ),
        ("4 MiB in one list", fill("x-a: [", "1,", "1]\n")),
        ("4 MiB in one text", fill("x-a: '", "a", "'\n")),
        ("4 MiB of comments", fill("", "# c\n", "")),
        ("4 MiB of variables", fill("x-a: '", "${A}", "'\n")),
        ("4 MiB of unclosed braces", fill("x-a: '", "${", "'\n")),
        (
            "500,000 nested defaults",
            format!("x-a: '{}{}'\n", "${A:-".repeat(500_000), "}".repeat(500_000)),
        ),
        ("100,000 brackets deep", format!("x-a: {}\n", "[".repeat(100_000))),
        ("an alias bomb", bomb),
        ("90,000 anchors", lines(90_000, &|n| format!("x-{n}: &a{n} v\n"))),
        (
            "a large mapping merged 100 times",
            format!(
                "x-a: &a\n{}services:\n{}",
                lines(900, &|n| format!("  k{n}: v\n")),
                lines(100, &|n| format!("  s{n}: {{ <<: *a, image: x }}\n"))
            ),
        ),
        (
            "90,000 unknown keys",
            format!("{service}{}", lines(90_000, &|n| format!("    imag{n}: v\n"))),
        ),
        (
            "45,000 variables of a service",
            format!(
                "{service}    environment:\n{}",
                lines(45_000, &|n| format!("      - K{n}=v\n"))
            ),
        ),
        (
            "45,000 ports",
            format!(
                "{service}    ports:\n{}",
                lines(45_000, &|n| format!("      - '{0}:{0}'\n", n + 1))
            ),
        ),
        (
            "250 ranges of all ports",
            format!(
                "services:\n{}",
                lines(250, &|n| format!(
                    "  s{n}: {{ image: x, ports: ['10.0.0.{n}:1-65535:1-65535'] }}\n"
                ))
            ),
        ),
        (
            "45,000 mounts",
            format!(
                "{service}    volumes:\n{}",
                lines(45_000, &|n| format!("      - /a{n}:/b{n}\n"))
            ),
        ),
        (
            "40,000 networks that are not declared",
            format!(
                "{service}    networks:\n{}",
                lines(40_000, &|n| format!("      - n{n}\n"))
            ),
        ),
        (
            "a chain of 10,000 dependencies",
            format!(
                "services:\n{}",
                lines(10_000, &|n| format!(
                    "  s{n}: {{ image: x, depends_on: [s{}] }}\n",
                    n + 1
                ))
            ),
        ),
        (
            "each of 200 services depends on all after it",
            format!(
                "services:\n{}",
                lines(200, &|n| {
                    let after: Vec<String> = (n + 1..200).map(|other| format!("s{other}")).collect();
                    format!("  s{n}: {{ image: x, depends_on: [{}] }}\n", after.join(", "))
                })
            ),
        ),
        (
            "a chain of 20,000 extends",
            format!(
                "services:\n  s0: {{ image: x }}\n{}",
                lines(20_000, &|n| format!("  s{}: {{ extends: s{n} }}\n", n + 1))
            ),
        ),
        (
            "a large service extended 2,000 times",
            format!(
                "services:\n  b: {{ image: x, expose: [{list}] }}\n{}",
                lines(2_000, &|n| format!("  s{n}: {{ extends: b }}\n"))
            ),
        ),
        (
            "50,000 includes of itself",
            format!(
                "include:\n{}",
                lines(50_000, &|_| "  - compose.yaml\n".to_owned())
            ),
        ),
        (
            "50,000 includes of nothing",
            format!("include:\n{}", lines(50_000, &|n| format!("  - n{n}.yaml\n"))),
        ),
        (
            "30,000 documents",
            lines(30_000, &|_| "---\nservices: { a: { image: x } }\n".to_owned()),
        ),
        ("4 MiB of zeros", "\0".repeat(MOST)),
    ]
}
