//! The worker of [`tests::hostile`].

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [_connect, place] = arguments.as_slice() else {
        return Err("it is started by a coordinator".into());
    };
    tests::hostile::serve(place)
}
